import { JupyterFrontEndPlugin } from '@jupyterlab/application';

import model from './plugins/model';

export * from './rest';
export * from './tokens';

const plugins: JupyterFrontEndPlugin<unknown>[] = [model];

export default plugins;
