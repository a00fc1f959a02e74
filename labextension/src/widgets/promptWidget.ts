import { ReactWidget } from '@jupyterlab/ui-components';
import { Message } from '@lumino/messaging';
import { flushSync } from 'react-dom';

/**
 * A widget that is drawn at once when its turn comes, in the frame that the answer comes in, rather than in a task and a
 * frame of its own.
 */
export abstract class PromptWidget extends ReactWidget {
  protected override onUpdateRequest(message: Message): void {
    flushSync(() => super.onUpdateRequest(message));
  }
}
