import { INotebookModel, NotebookModel } from '@jupyterlab/notebook';

import { KernelChoice } from '../kernelChoice';
import { Launch } from '../launch';
import { FakeContext, FakeSpecs, gpuSpecs, settled } from './fakes';

const PLAIN = {
  name: 'python3',
  display_name: 'Python 3 (ipykernel)',
  language: 'python'
};

/** What JupyterLab writes when a kernel runs. */
function writeSpec(model: INotebookModel, name: string): void {
  const spec = gpuSpecs().kernelspecs[name];
  model.setMetadata('kernelspec', {
    name,
    display_name: spec?.display_name ?? name,
    language: spec?.language
  });
}

describe('KernelChoice', () => {
  let model: NotebookModel;
  let context: FakeContext;
  let specs: FakeSpecs;
  let choice: KernelChoice;

  const follow = () =>
    (choice = new KernelChoice({
      model,
      launch: new Launch(context.asContext),
      specs: specs.asManager
    }));

  const load = (metadata: object) => {
    model.fromJSON({
      nbformat: 4,
      nbformat_minor: 5,
      metadata: metadata as never,
      cells: []
    });
    model.dirty = false;
  };

  /** A person picks a kernelspec, in whatever way. */
  const pick = (id: string, name: string) => {
    context.begin();
    context.arrive(id, name);
    writeSpec(model, name);
  };

  beforeEach(() => {
    model = new NotebookModel();
    context = new FakeContext();
    specs = new FakeSpecs(gpuSpecs());
    follow();
  });

  afterEach(() => {
    choice.dispose();
    model.dispose();
  });

  it("puts the base's name back and keeps the variant's request", () => {
    load({ kernelspec: PLAIN });
    pick('k1', 'python3-gpu1');
    expect(model.getMetadata('kernelspec')).toEqual(PLAIN);
    expect(model.getMetadata('jupyter_gpu')).toEqual({ request: '1' });
    expect(model.dirty).toBe(true);
  });

  it('saves nothing else and removes nothing else', () => {
    load({
      kernelspec: PLAIN,
      authors: ['me'],
      jupyter_gpu: { note: 'kept', request: '0:8GiB' }
    });
    pick('k1', 'python3-gpu1');
    expect(model.toJSON().metadata).toEqual({
      kernelspec: PLAIN,
      authors: ['me'],
      jupyter_gpu: { note: 'kept', request: '1' },
      language_info: { name: '' }
    });
  });

  it('follows one pick after the other', () => {
    load({ kernelspec: PLAIN });
    pick('k1', 'python3-gpu1');
    pick('k2', 'python3-gpu0');
    expect(model.getMetadata('jupyter_gpu')).toEqual({ request: '0' });
    pick('k3', 'python3-cpu');
    expect(model.getMetadata('jupyter_gpu')).toEqual({ request: 'cpu' });
    expect(model.getMetadata('kernelspec')).toEqual(PLAIN);
  });

  it('keeps the request when the plain kernelspec is picked', () => {
    load({ kernelspec: PLAIN, jupyter_gpu: { request: '1' } });
    pick('k1', 'python3');
    expect(model.getMetadata('jupyter_gpu')).toEqual({ request: '1' });
  });

  it('picks no request for a notebook that has none when the plain kernelspec is picked', () => {
    load({ kernelspec: PLAIN });
    pick('k1', 'python3');
    expect(model.getMetadata('jupyter_gpu')).toBeUndefined();
  });

  it('does not undo a change of request when the kernel is restarted', () => {
    load({ kernelspec: PLAIN });
    pick('k1', 'python3-gpu1');
    model.setMetadata('jupyter_gpu', { request: '0:8GiB' });
    context.restart();
    writeSpec(model, 'python3-gpu1');
    expect(model.getMetadata('jupyter_gpu')).toEqual({ request: '0:8GiB' });
    expect(model.getMetadata('kernelspec')).toEqual(PLAIN);
  });

  it('does not undo a change of request when a page connects to a running kernel', () => {
    load({ kernelspec: PLAIN, jupyter_gpu: { request: '0:8GiB' } });
    context.arrive('k1', 'python3-gpu1');
    writeSpec(model, 'python3-gpu1');
    expect(model.getMetadata('jupyter_gpu')).toEqual({ request: '0:8GiB' });
    expect(model.getMetadata('kernelspec')).toEqual(PLAIN);
  });

  it('leaves an unchanged notebook clean', async () => {
    load({ kernelspec: PLAIN, jupyter_gpu: { request: '1' } });
    context.arrive('k1', 'python3-gpu1');
    writeSpec(model, 'python3-gpu1');
    await settled();
    expect(model.dirty).toBe(false);
  });

  it('leaves a changed notebook changed', async () => {
    load({ kernelspec: PLAIN, jupyter_gpu: { request: '1' } });
    model.sharedModel.insertCell(0, { cell_type: 'code', source: 'x' });
    expect(model.dirty).toBe(true);
    context.arrive('k1', 'python3-gpu1');
    writeSpec(model, 'python3-gpu1');
    await settled();
    expect(model.dirty).toBe(true);
  });

  it("starts a listed variant that another client saved, and then puts the base's name back", () => {
    load({ kernelspec: { name: 'python3-gpu1', display_name: 'x' } });
    expect(model.defaultKernelName).toBe('python3-gpu1');
    pick('k1', 'python3-gpu1');
    expect(model.getMetadata('kernelspec')).toEqual(PLAIN);
    expect(model.getMetadata('jupyter_gpu')).toEqual({ request: '1' });
  });

  it('falls back to the base for a variant that is not offered here, before a kernel is looked for', () => {
    load({ kernelspec: { name: 'python3-gpu7', display_name: 'x' } });
    expect(model.defaultKernelName).toBe('python3');
    expect(model.getMetadata('kernelspec')).toEqual(PLAIN);
    expect(model.getMetadata('jupyter_gpu')).toEqual({ request: '7' });
  });

  it("leaves other kernelspecs' names alone, known or not", () => {
    for (const name of ['julia-1.10', 'other-gpu1', 'python3-gpus']) {
      load({ kernelspec: { name, display_name: name } });
      expect(model.defaultKernelName).toBe(name);
      expect(model.getMetadata('jupyter_gpu')).toBeUndefined();
    }
  });

  it('puts a notebook right that was open before it came', () => {
    choice.dispose();
    load({ kernelspec: { name: 'python3-gpu7', display_name: 'x' } });
    expect(model.defaultKernelName).toBe('python3-gpu7');
    follow();
    expect(model.defaultKernelName).toBe('python3');
  });
});
