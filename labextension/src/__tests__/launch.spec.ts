import { ILaunched, Launch } from '../launch';
import { Launches } from '../launches';
import { FakeContext } from './fakes';

describe('Launch', () => {
  let context: FakeContext;
  let launched: ILaunched[];
  let launch: Launch;

  beforeEach(() => {
    context = new FakeContext();
    launch = new Launch(context.asContext);
    launched = [];
    launch.launched.connect((_, args) => launched.push(args));
  });

  it('tells of a kernel that was started', () => {
    context.begin();
    expect(launch.pending).toBe(true);
    context.arrive('k1', 'python3');
    expect(launch.pending).toBe(false);
    expect(launched.map(l => [l.kernel.id, l.restarted])).toEqual([
      ['k1', false]
    ]);
  });

  it('tells nothing of a kernel that it merely connects to', () => {
    context.arrive('k1', 'python3');
    expect(launched).toEqual([]);
  });

  it('tells a restart from a change', () => {
    context.arrive('k1', 'python3');
    context.restart();
    context.arrive('k2', 'python3-gpu1');
    expect(launched.map(l => [l.kernel.id, l.restarted])).toEqual([
      ['k1', true],
      ['k2', false]
    ]);
  });

  it('is not pending any more after a failure', () => {
    context.begin();
    context.fail();
    expect(launch.pending).toBe(false);
    expect(launched).toEqual([]);
  });

  it('is not pending while a person is asked for a kernel', () => {
    context.kernelDisplayStatus = 'initializing';
    context.hasNoKernel = true;
    context.statusChanged.emit('unknown');
    expect(launch.pending).toBe(false);
  });
});

describe('Launches', () => {
  it('is pending while any is, and forgets what is closed', () => {
    const launches = new Launches();
    const [a, b] = [new FakeContext(), new FakeContext()];
    launches.of(a.asContext);
    expect(launches.of(a.asContext)).toBe(launches.of(a.asContext));
    launches.of(b.asContext);
    const told: boolean[] = [];
    launches.pendingChanged.connect(() => told.push(launches.pending));
    a.begin();
    b.begin();
    a.arrive('k1', 'python3');
    expect(told).toEqual([true]);
    b.disposed.emit();
    expect(told).toEqual([true, false]);
  });
});
