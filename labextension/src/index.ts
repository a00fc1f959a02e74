import { JupyterFrontEndPlugin } from '@jupyterlab/application';

import commands from './plugins/commands';
import details from './plugins/details';
import kernelChoice from './plugins/kernelChoice';
import kernelDialogs from './plugins/kernelDialogs';
import kernelSpecs from './plugins/kernelSpecs';
import launches from './plugins/launches';
import model from './plugins/model';
import notifications from './plugins/notifications';
import openKernels from './plugins/openKernels';
import panel from './plugins/panel';
import running from './plugins/running';
import simulated from './plugins/simulated';
import statusBar from './plugins/statusBar';
import toolbar from './plugins/toolbar';
import usageNotices from './plugins/usageNotices';

export * from './rest';
export * from './tokens';

const plugins: JupyterFrontEndPlugin<unknown>[] = [
  model,
  launches,
  kernelChoice,
  kernelSpecs,
  notifications,
  simulated,
  openKernels,
  commands,
  kernelDialogs,
  panel,
  toolbar,
  statusBar,
  running,
  details,
  usageNotices
];

export default plugins;
