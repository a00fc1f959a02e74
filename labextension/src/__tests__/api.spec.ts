import { ServerConnection } from '@jupyterlab/services';

import { GPUAPI, GPUError } from '../api';

interface ISent {
  url: string;
  init: RequestInit;
}

function apiThat(answer: () => Response | Error): [GPUAPI, ISent[]] {
  const sent: ISent[] = [];
  const api = new GPUAPI({
    serverSettings: ServerConnection.makeSettings({
      baseUrl: 'http://host/user/me/'
    }),
    request: async (url, init) => {
      sent.push({ url, init });
      const found = answer();
      if (found instanceof Error) {
        throw found;
      }
      return found;
    }
  });
  return [api, sent];
}

function json(body: object, status = 200): Response {
  return respond(JSON.stringify(body), status);
}

function respond(body: string, status: number): Response {
  return {
    ok: status < 300,
    status,
    statusText: 'Sorry',
    text: async () => body,
    json: async () => JSON.parse(body)
  } as unknown as Response;
}

async function errorOf(promise: Promise<unknown>): Promise<GPUError> {
  const error = await promise.then(
    () => null,
    reason => reason
  );
  expect(error).toBeInstanceOf(GPUError);
  return error as GPUError;
}

describe('GPUAPI', () => {
  it('asks below the base URL', async () => {
    const [api, sent] = apiThat(() => json({ time: 1, kernels: [] }));
    expect(await api.kernels()).toEqual({ time: 1, kernels: [] });
    expect(sent[0].url).toBe('http://host/user/me/gpu/api/kernels');
    expect(sent[0].init.method).toBe('GET');
  });

  it('sends a change of request as JSON', async () => {
    const [api, sent] = apiThat(() => json({}));
    await api.changeKernel('a b', { request: '1:8GiB', restart: false });
    expect(sent[0].url).toBe('http://host/user/me/gpu/api/kernels/a%20b');
    expect(sent[0].init.method).toBe('PATCH');
    expect(JSON.parse(sent[0].init.body as string)).toEqual({
      request: '1:8GiB',
      restart: false
    });
  });

  it('does not look for a body after a deletion', async () => {
    const [api, sent] = apiThat(() => respond('', 204));
    await api.cancelWaiting('7');
    expect(sent[0].url).toBe('http://host/user/me/gpu/api/queue/7');
    expect(sent[0].init.method).toBe('DELETE');
  });

  it("gives a refusal in the server's own words", async () => {
    const sentence = 'GPU 9 is not there: there are GPU 0 and GPU 1.';
    const [api] = apiThat(() => json({ message: sentence }, 400));
    const error = await errorOf(api.changeKernel('k', { request: '9' }));
    expect(error.kind).toBe('refused');
    expect(error.status).toBe(400);
    expect(error.message).toBe(sentence);
  });

  it('tells an unknown thing from a missing server extension', async () => {
    const [unknown] = apiThat(() => json({ message: 'No such kernel.' }, 404));
    expect((await errorOf(unknown.kernel('k'))).kind).toBe('refused');
    const [absent] = apiThat(() => respond('<html>404</html>', 404));
    expect((await errorOf(absent.kernel('k'))).kind).toBe('absent');
  });

  it('tells forbidden, failed and unreachable apart', async () => {
    const [forbidden] = apiThat(() => respond('', 403));
    expect((await errorOf(forbidden.status())).kind).toBe('forbidden');
    const [failed] = apiThat(() => respond('<html>oops', 502));
    const failure = await errorOf(failed.status());
    expect(failure.kind).toBe('failed');
    expect(failure.message).toBe('The server answered 502 Sorry.');
    const [unreachable] = apiThat(() => new TypeError('Failed to fetch'));
    const error = await errorOf(unreachable.status());
    expect(error.kind).toBe('unreachable');
    expect(error.status).toBeNull();
  });

  it('reads kernels from a table, which says the names of the fields once', async () => {
    const [api] = apiThat(() =>
      json({
        time: 1,
        stale: null,
        columns: ['kernel_id', 'label', 'devices'],
        device_columns: ['uuid', 'used_bytes', 'reasons'],
        reasons: [{}, { used_bytes: 'Nobody tells.' }],
        rows: [
          [
            'k1',
            'A.ipynb',
            [
              ['GPU-1', 5, 0],
              ['GPU-2', null, 1]
            ]
          ],
          ['k2', 'B.ipynb', []]
        ]
      })
    );
    expect(await api.kernels()).toEqual({
      time: 1,
      stale: null,
      kernels: [
        {
          kernel_id: 'k1',
          label: 'A.ipynb',
          devices: [
            { uuid: 'GPU-1', used_bytes: 5, reasons: {} },
            {
              uuid: 'GPU-2',
              used_bytes: null,
              reasons: { used_bytes: 'Nobody tells.' }
            }
          ]
        },
        { kernel_id: 'k2', label: 'B.ipynb', devices: [] }
      ]
    });
  });

  const PARTS = {
    devices: { time: 1, devices: [] },
    kernels: { time: 1, kernels: [] },
    queue: { time: 1, entries: [] }
  };

  it('asks once for what is asked for together', async () => {
    const [api, sent] = apiThat(() => json(PARTS));
    expect(
      await Promise.all([api.devices(), api.kernels(), api.queue()])
    ).toEqual([PARTS.devices, PARTS.kernels, PARTS.queue]);
    expect(sent.map(each => each.url)).toEqual([
      'http://host/user/me/gpu/api/live'
    ]);
    await Promise.all([api.devices(), api.queue()]);
    expect(sent).toHaveLength(2);
  });

  it('asks one by one where asking together fails', async () => {
    const sent: string[] = [];
    const api = new GPUAPI({
      serverSettings: ServerConnection.makeSettings({ baseUrl: 'http://host' }),
      request: async url => {
        const name = url.split('/').pop() as keyof typeof PARTS;
        sent.push(name);
        return name in PARTS ? json(PARTS[name]) : respond('<html>404', 404);
      }
    });
    expect(await Promise.all([api.devices(), api.queue()])).toEqual([
      PARTS.devices,
      PARTS.queue
    ]);
    expect(sent).toEqual(['live', 'devices', 'queue']);
  });

  it('fails in a sentence, not somewhere on the screen, on an answer of another version', async () => {
    const [api] = apiThat(() => json({ time: 1 }));
    for (const answer of [api.kernels(), api.devices(), api.queue()]) {
      const error = await errorOf(answer);
      expect(error.kind).toBe('failed');
      expect(error.message).toContain('load this page again');
    }
  });

  it('fails on a good status without JSON, as a proxy may send', async () => {
    const [api] = apiThat(() => respond('<html>login</html>', 200));
    expect((await errorOf(api.devices())).kind).toBe('failed');
  });
});
