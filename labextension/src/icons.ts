import { LabIcon } from '@jupyterlab/ui-components';

import chartSvg from '../style/icons/chart.svg';
import gpuSvg from '../style/icons/gpu.svg';

/** A graphics card. */
export const gpuIcon = new LabIcon({ name: 'jupyter-gpu:gpu', svgstr: gpuSvg });

/** A line over time. */
export const chartIcon = new LabIcon({
  name: 'jupyter-gpu:chart',
  svgstr: chartSvg
});
