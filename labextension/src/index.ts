import { JupyterFrontEndPlugin } from '@jupyterlab/application';

import kernelChoice from './plugins/kernelChoice';
import kernelSpecs from './plugins/kernelSpecs';
import launches from './plugins/launches';
import model from './plugins/model';
import notifications from './plugins/notifications';
import simulated from './plugins/simulated';

export * from './rest';
export * from './tokens';

const plugins: JupyterFrontEndPlugin<unknown>[] = [
  model,
  launches,
  kernelChoice,
  kernelSpecs,
  notifications,
  simulated
];

export default plugins;
