/** What became of a call that brought no answer. */
export type GPUErrorKind =
  /** No connection to the server. */
  | 'unreachable'
  /** The server is there, but has no GPU API: the server extension is missing or switched off. */
  | 'absent'
  /** The server asks for authentication, or forbids. */
  | 'forbidden'
  /** The server refused this very request: it says what was wrong. */
  | 'refused'
  /** The server failed, or cannot answer just now. */
  | 'failed';

/** A call to the GPU API that brought no answer. The message is one sentence for people. */
export class GPUError extends Error {
  constructor(
    readonly kind: GPUErrorKind,
    message: string,
    /** The HTTP status, or null where there was no response. */
    readonly status: number | null = null
  ) {
    super(message);
    this.name = 'GPUError';
  }
}

/** The sentence of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
