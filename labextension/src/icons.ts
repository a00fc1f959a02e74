import { LabIcon } from '@jupyterlab/ui-components';

import gpuSvg from '../style/icons/gpu.svg';

/** A graphics card. */
export const gpuIcon = new LabIcon({ name: 'jupyter-gpu:gpu', svgstr: gpuSvg });
