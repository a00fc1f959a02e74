import { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

import { gpuIcon } from '../icons';
import { IStatus } from '../rest';
import { IFeed } from '../tokens';

/** Says that the GPUs are simulated, and is not to be seen where they are not. */
export class SimulatedMark extends Widget {
  constructor(
    private readonly _status: IFeed<IStatus>,
    private readonly _trans: TranslationBundle
  ) {
    super();
    this.id = 'jupyter-gpu-simulated';
    this.addClass('jp-gpu-Simulated');
    const label = document.createElement('span');
    label.textContent = this._trans.__('Simulated GPUs');
    this.node.append(gpuIcon.element({ elementSize: 'small' }), label);
    this._status.changed.connect(this._update, this);
    this._update();
  }

  private _update(): void {
    const status = this._status.value;
    this.setHidden(!status?.simulated);
    this.node.title = this._trans._n(
      'The %1 GPU of this server is simulated: it has memory to hold and to run out of, but computes nothing.',
      'The %1 GPUs of this server are simulated: they have memory to hold and to run out of, but compute nothing.',
      status?.device_count ?? 0
    );
  }
}
