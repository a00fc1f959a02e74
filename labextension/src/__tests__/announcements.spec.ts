import { nullTranslator } from '@jupyterlab/translation';

import { Announcements } from '../announcements';
import { IAvailability } from '../availability';
import { LeaseColours } from '../colours';
import { Overviews } from '../overview';
import { IQueueEntry } from '../rest';
import { device, entry } from './fakes';

const READY: IAvailability = {
  kind: 'ready',
  problems: [],
  isStale: false,
  arrived_ms: 0
};
const STALE: IAvailability = {
  ...READY,
  isStale: true,
  problems: [
    { code: 'unreachable', message: 'The server does not answer.', advice: '' }
  ]
};

describe('Announcements', () => {
  let announcements: Announcements;

  beforeEach(() => {
    announcements = new Announcements(nullTranslator.load('test'));
    announcements.next({ ...READY, kind: 'loading' }, null);
  });

  const overview = (
    change: { queue?: IQueueEntry[]; used?: number; lost?: boolean } = {}
  ) =>
    new Overviews(new LeaseColours()).next(
      {
        time: 1,
        devices: [
          device('0', {
            memory_used_bytes: change.used ?? 0,
            lost: change.lost ?? false
          })
        ],
        kernels: [],
        queue: change.queue ?? []
      },
      { filter: '', order: 'gpu', nearCap_percent: 90, isSeen: () => true }
    );

  it('says nothing of what was so when the panel was opened', () => {
    expect(announcements.next(READY, overview({ queue: [entry('q')] }))).toBe(
      ''
    );
  });

  it('says nothing of figures', () => {
    announcements.next(READY, overview());
    expect(announcements.next(READY, overview({ used: 2 ** 33 }))).toBe('');
  });

  it('says once that a kernel waits and that a GPU is lost', () => {
    announcements.next(READY, overview());
    const waits = overview({ queue: [entry('q')] });
    expect(announcements.next(READY, waits)).toBe('B.ipynb waits for a GPU.');
    expect(announcements.next(READY, waits)).toBe('B.ipynb waits for a GPU.');
    expect(announcements.next(READY, overview({ lost: true }))).toBe(
      'GPU 0 was lost.'
    );
  });

  it('says that the server is away, and that it is back', () => {
    announcements.next(READY, overview());
    expect(announcements.next(STALE, overview())).toBe(
      'The server does not answer.'
    );
    expect(announcements.next(READY, overview())).toBe(
      'The server answers again.'
    );
  });
});
