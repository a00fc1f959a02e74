import { Feed } from '../feed';

describe('Feed', () => {
  let asked: number;
  let answer: () => Promise<number>;
  let feed: Feed<number>;

  beforeEach(() => {
    jest.useFakeTimers();
    asked = 0;
    answer = async () => asked;
    feed = new Feed<number>({
      name: 'test',
      request: () => {
        asked += 1;
        return answer();
      },
      interval_ms: 1_000,
      now: () => 42
    });
  });

  afterEach(() => {
    feed.dispose();
    jest.useRealTimers();
  });

  const pass = (ms: number) => jest.advanceTimersByTimeAsync(ms);

  it('asks nothing while nobody watches', async () => {
    await pass(60_000);
    expect(asked).toBe(0);
    expect(feed.freshness).toBe('idle');
  });

  it('asks at once when watched, and then at intervals', async () => {
    feed.watch();
    expect(feed.freshness).toBe('loading');
    await pass(10);
    expect(asked).toBe(1);
    expect(feed.value).toBe(1);
    expect(feed.freshness).toBe('fresh');
    expect(feed.arrived_ms).toBe(42);
    await pass(3_000);
    expect(asked).toBe(4);
  });

  it('rests when the last watcher has gone, and goes on with the next', async () => {
    const first = feed.watch();
    const second = feed.watch();
    await pass(10);
    first.dispose();
    first.dispose();
    await pass(1_000);
    expect(asked).toBe(2);
    second.dispose();
    await pass(60_000);
    expect(asked).toBe(2);
    feed.watch();
    await pass(10);
    expect(asked).toBe(3);
  });

  it('keeps the pace of its most eager watcher', async () => {
    feed.watch({ interval_ms: 20_000 });
    await pass(10);
    const eager = feed.watch({ interval_ms: 500 });
    await pass(10);
    expect(asked).toBe(2);
    await pass(1_000);
    expect(asked).toBe(4);
    eager.dispose();
    await pass(500);
    asked = 0;
    await pass(19_000);
    expect(asked).toBeLessThanOrEqual(1);
  });

  it('follows a change of its own pace', async () => {
    feed.watch();
    await pass(10);
    feed.interval_ms = 10_000;
    await pass(1_000);
    asked = 0;
    await pass(9_000);
    expect(asked).toBe(0);
  });

  it('keeps the last good value through a failure, backs off, and comes back', async () => {
    feed.watch();
    await pass(10);
    const good = answer;
    answer = () => Promise.reject(new Error('away'));
    await pass(1_000);
    expect(feed.freshness).toBe('stale');
    expect(feed.error?.message).toBe('away');
    expect(feed.value).toBe(1);
    asked = 0;
    await pass(20_000);
    expect(asked).toBeGreaterThan(0);
    expect(asked).toBeLessThan(15);
    answer = good;
    await pass(30_000);
    expect(feed.freshness).toBe('fresh');
    expect(feed.error).toBeNull();
  });

  it('tells of every attempt', async () => {
    let told = 0;
    feed.changed.connect(() => (told += 1));
    feed.watch();
    expect(told).toBe(1);
    await pass(2_010);
    expect(told).toBe(4);
  });

  it('rests while the page is hidden', async () => {
    const visibility = jest.spyOn(document, 'visibilityState', 'get');
    const turn = (hidden: boolean) => {
      visibility.mockReturnValue(hidden ? 'hidden' : 'visible');
      document.dispatchEvent(new Event('visibilitychange'));
    };
    feed.watch();
    await pass(10);
    turn(true);
    await pass(3_000);
    asked = 0;
    await pass(60_000);
    expect(asked).toBe(0);
    turn(false);
    await pass(1_000);
    expect(asked).toBe(1);
    visibility.mockRestore();
  });

  it('shares one request between askings that overlap', async () => {
    const results = Promise.all([feed.refresh(), feed.refresh()]);
    await pass(0);
    expect(await results).toEqual([1, 1]);
    expect(asked).toBe(1);
  });

  it('is silent once disposed', async () => {
    feed.watch();
    await pass(10);
    feed.dispose();
    asked = 0;
    await pass(10_000);
    expect(asked).toBe(0);
  });
});
