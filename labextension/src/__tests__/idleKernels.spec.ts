import { NotebookModel } from '@jupyterlab/notebook';

import { IdleKernels } from '../idleKernels';
import { GPUModel } from '../model';
import { keepRequest, OpenKernels } from '../openKernels';
import { IKernelChange, IIdle } from '../rest';
import { FakeAPI, kernel } from './fakes';

const IDLE: IIdle = {
  since: 1,
  policy: 'shut-down',
  action_at: 100,
  exempt: false
};

describe('IdleKernels', () => {
  let api: FakeAPI;
  let model: GPUModel;
  let notebook: NotebookModel;
  let idle: IdleKernels;
  let changes: IKernelChange[];

  beforeEach(() => {
    api = new FakeAPI();
    changes = [];
    const change = api.changeKernel.bind(api);
    api.changeKernel = (id: string, asked?: IKernelChange) => {
      changes.push(asked!);
      return change(id);
    };
    model = new GPUModel(api);
    notebook = new NotebookModel();
    const open = {
      notebook,
      sessionContext: { session: { kernel: { id: 'k1' } } }
    };
    idle = new IdleKernels(model, new OpenKernels(() => [open] as never));
  });

  const know = async (...kernels: ReturnType<typeof kernel>[]) => {
    api.kernelsAnswer = kernels;
    await model.kernels.refresh();
  };

  it('minds kernels with a GPU, on servers that have a policy', async () => {
    await know(
      kernel('k1', { idle: null }),
      kernel('k2'),
      kernel('k3', { idle: null, devices: [] })
    );
    expect(['k1', 'k2', 'k3', 'k4'].map(id => idle.isMinded(id))).toEqual([
      true,
      false,
      false,
      false
    ]);
  });

  it("tells the server, and the notebook keeps it beside the notebook's request", async () => {
    await know(kernel('k1', { idle: IDLE }));
    keepRequest(notebook, '1:8GiB');
    await idle.keep('k1', true);
    expect(changes).toEqual([{ keep_when_idle: true }]);
    expect(notebook.getMetadata('jupyter_gpu')).toEqual({
      request: '1:8GiB',
      keep_when_idle: true
    });
    await idle.keep('k1', false);
    expect(notebook.getMetadata('jupyter_gpu')).toEqual({ request: '1:8GiB' });
  });

  it('leaves no trace in a notebook that had none', async () => {
    await know(kernel('k1', { idle: IDLE }));
    await idle.keep('k1', true);
    await idle.keep('k1', false);
    expect(notebook.getMetadata('jupyter_gpu')).toBeUndefined();
  });

  it('believes the server, and the notebook where the server does not say', async () => {
    await know(kernel('k1', { idle: IDLE }));
    await idle.keep('k1', true);
    expect(idle.isKept('k1')).toBe(false);
    await know(kernel('k1', { idle: { ...IDLE, exempt: true } }));
    expect(idle.isKept('k1')).toBe(true);
    await know(kernel('k1', { idle: null }));
    expect(idle.isKept('k1')).toBe(true);
  });
});
