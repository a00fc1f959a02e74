import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import { readKernels, withList } from './answers';
import { GPUError, GPUErrorKind, messageOf } from './errors';
import {
  IChangedKernel,
  IDevices,
  IHistory,
  IKernel,
  IKernelChange,
  IKernels,
  ILive,
  IQueue,
  IStatus
} from './rest';
import { Together } from './together';
import { IGPUAPI } from './tokens';

export { GPUError, messageOf } from './errors';
export type { GPUErrorKind } from './errors';

/** The client of `<base_url>/gpu/api`. */
export class GPUAPI implements IGPUAPI {
  constructor(options: GPUAPI.IOptions = {}) {
    this._settings = options.serverSettings ?? ServerConnection.makeSettings();
    this._request = options.request ?? ServerConnection.makeRequest;
  }

  status(): Promise<IStatus> {
    return this._json('GET', 'status');
  }

  async devices(): Promise<IDevices> {
    return withList(await this._live.ask('devices'), 'devices');
  }

  async kernels(): Promise<IKernels> {
    return readKernels(await this._live.ask('kernels'));
  }

  kernel(id: string): Promise<IKernel> {
    return this._json('GET', `kernels/${encodeURIComponent(id)}`);
  }

  changeKernel(id: string, change: IKernelChange): Promise<IChangedKernel> {
    return this._json('PATCH', `kernels/${encodeURIComponent(id)}`, change);
  }

  async queue(): Promise<IQueue> {
    return withList(await this._live.ask('queue'), 'entries');
  }

  async cancelWaiting(id: string): Promise<void> {
    await this._send('DELETE', `queue/${encodeURIComponent(id)}`);
  }

  history(since: number): Promise<IHistory> {
    return this._json('GET', `history?since=${since}`);
  }

  private async _json<T>(
    method: string,
    path: string,
    body?: object
  ): Promise<T> {
    const response = await this._send(method, path, body);
    try {
      return (await response.json()) as T;
    } catch {
      throw new GPUError(
        'failed',
        `The server answered "${path}" with something other than JSON.`,
        response.status
      );
    }
  }

  private async _send(
    method: string,
    path: string,
    body?: object
  ): Promise<Response> {
    const url = URLExt.join(this._settings.baseUrl, 'gpu', 'api', path);
    const init: RequestInit = { method };
    if (body !== undefined) {
      init.body = JSON.stringify(body);
    }
    let response: Response;
    try {
      response = await this._request(url, init, this._settings);
    } catch (error) {
      throw new GPUError('unreachable', messageOf(error));
    }
    if (!response.ok) {
      throw await refusal(response);
    }
    return response;
  }

  private readonly _live = new Together<ILive>(
    () => this._json('GET', 'live'),
    name => this._json('GET', name)
  );
  private readonly _settings: ServerConnection.ISettings;
  private readonly _request: typeof ServerConnection.makeRequest;
}

export namespace GPUAPI {
  export interface IOptions {
    serverSettings?: ServerConnection.ISettings;
    /** What sends a request; the default is JupyterLab's own. */
    request?: typeof ServerConnection.makeRequest;
  }
}

/** The error that a response other than 2xx stands for. */
async function refusal(response: Response): Promise<GPUError> {
  const body = await response.text().catch(() => '');
  let message: string | null = null;
  try {
    const parsed: unknown = JSON.parse(body);
    if (parsed && typeof parsed === 'object' && 'message' in parsed) {
      message = String(parsed.message);
    }
  } catch {
    // Not ours: a proxy's page, or the server's page for an unknown address.
  }
  return new GPUError(
    kindOf(response.status, message !== null),
    message ?? `The server answered ${response.status} ${response.statusText}.`,
    response.status
  );
}

function kindOf(status: number, ours: boolean): GPUErrorKind {
  if (status === 401 || status === 403) {
    return 'forbidden';
  }
  if (status === 404 && !ours) {
    return 'absent';
  }
  return status < 500 ? 'refused' : 'failed';
}
