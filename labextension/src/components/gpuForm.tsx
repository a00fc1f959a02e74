import { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { readableAmount } from '../amount';
import { shortName, unitName } from '../names';
import { reservableBytes } from '../outlook';
import { AUTO, CPU, IChoice, Memory, SHARED, WHOLE } from '../request';
import { IDevice, ILease } from '../rest';
import { IAnnouncement } from '../sentences';

/** What the form shows: a choice, or a request in writing that is more than a choice. */
export interface IFormValue {
  readonly choice: IChoice;
  /** The request in writing; null while one of the choices is picked. */
  readonly written: string | null;
  /** The amount as it was typed, kept while another kind of memory is picked. */
  readonly amount: string;
}

export interface IGPUFormProps {
  readonly trans: TranslationBundle;
  readonly devices: readonly IDevice[];
  readonly value: IFormValue;
  readonly announcement: IAnnouncement;
  /** Where nothing can be chosen, the reason. */
  readonly disabled: string | null;
  readonly isOwn: (lease: ILease) => boolean;
  readonly onChange: (value: IFormValue) => void;
}

/** GPU and memory, and what will come of it. */
export function GPUForm(props: IGPUFormProps): JSX.Element {
  const { trans, value, announcement, disabled } = props;
  const id = React.useId();
  const hasMemory =
    value.written === null && value.choice.device !== CPU && !disabled;
  return (
    <div className="jp-gpu-Form">
      <fieldset className="jp-gpu-Form-group" disabled={disabled !== null}>
        <legend>{trans.__('GPU')}</legend>
        <Devices {...props} name={`${id}-device`} />
      </fieldset>
      <fieldset className="jp-gpu-Form-group" disabled={!hasMemory}>
        <legend>{trans.__('Memory')}</legend>
        <MemoryChoice {...props} name={`${id}-memory`} />
      </fieldset>
      <p
        className="jp-gpu-Form-outlook"
        data-tone={disabled === null ? announcement.tone : 'plain'}
      >
        {disabled ?? announcement.text}
      </p>
      <Spoken
        text={disabled ?? announcement.text}
        occasion={JSON.stringify([
          value.choice,
          value.written,
          announcement.tone,
          announcement.verdict,
          announcement.effect,
          disabled
        ])}
      />
    </div>
  );
}

/** What a screen reader says of a choice: once for each, not whenever a figure in it moves. */
const Spoken = React.memo(
  ({ text }: { text: string; occasion: string }): JSX.Element => (
    <p className="jp-gpu-VisuallyHidden" role="status" aria-live="polite">
      {text}
    </p>
  ),
  (a, b) => a.occasion === b.occasion
);

function Devices(props: IGPUFormProps & { name: string }): JSX.Element {
  const { trans, value, onChange, devices, isOwn } = props;
  const picked = value.written === null ? value.choice.device : null;
  const pick = (device: string) =>
    onChange({
      ...value,
      written: null,
      choice: {
        device,
        memory: device === CPU ? SHARED : value.choice.memory
      }
    });
  const option = (device: string, title: string, note: string, free = '') => (
    <label className="jp-gpu-Option" key={device}>
      <input
        type="radio"
        name={props.name}
        value={device}
        checked={picked === device}
        onChange={() => pick(device)}
      />
      <span className="jp-gpu-Option-title">{title}</span>
      <span className="jp-gpu-Option-note">{note}</span>
      <span className="jp-gpu-Option-figure">{free}</span>
    </label>
  );
  return (
    <div className="jp-gpu-Options" role="radiogroup">
      {option(AUTO, trans.__('Automatic'), trans.__('wherever there is room'))}
      {devices
        .filter(device => device.leasable)
        .map(device =>
          option(
            device.index,
            unitName(device, trans),
            shortName(device.name),
            freeText(device, isOwn, trans)
          )
        )}
      {option(CPU, trans.__('CPU'), trans.__('no GPU'))}
      <Written {...props} />
    </div>
  );
}

/** For what the choices do not offer: several GPUs, or one of a model. */
function Written({
  trans,
  value,
  name,
  onChange
}: IGPUFormProps & { name: string }): JSX.Element {
  const input = React.useRef<HTMLInputElement>(null);
  const isPicked = value.written !== null;
  return (
    <div className="jp-gpu-Option">
      <label className="jp-gpu-Option-whole">
        <input
          type="radio"
          name={name}
          value="written"
          checked={isPicked}
          onChange={() => {
            onChange({ ...value, written: value.written ?? '' });
            input.current?.focus();
          }}
        />
        <span className="jp-gpu-Option-title">{trans.__('Other')}</span>
      </label>
      <input
        ref={input}
        type="text"
        className="jp-gpu-Input jp-gpu-Option-input"
        aria-label={trans.__('Request in writing')}
        placeholder={trans.__('such as 0,1:8GiB or 2xH100')}
        spellCheck={false}
        value={value.written ?? ''}
        onFocus={() =>
          !isPicked && onChange({ ...value, written: value.written ?? '' })
        }
        onChange={event => onChange({ ...value, written: event.target.value })}
      />
    </div>
  );
}

function MemoryChoice({
  trans,
  value,
  name,
  onChange
}: IGPUFormProps & { name: string }): JSX.Element {
  const { memory } = value.choice;
  const pick = (picked: Memory, amount = value.amount) =>
    onChange({
      ...value,
      amount,
      choice: { ...value.choice, memory: picked }
    });
  const option = (picked: Memory, title: string, note: string) => (
    <label className="jp-gpu-Option" key={picked.kind}>
      <input
        type="radio"
        name={name}
        value={picked.kind}
        checked={memory.kind === picked.kind}
        onChange={() => pick(picked)}
      />
      <span className="jp-gpu-Option-title">{title}</span>
      <span className="jp-gpu-Option-note">{note}</span>
    </label>
  );
  const reserve = (amount: string) =>
    pick({ kind: 'reserved', amount: withUnit(amount) }, amount);
  return (
    <div className="jp-gpu-Options" role="radiogroup">
      {option(SHARED, trans.__('Shared'), trans.__('what nobody has reserved'))}
      <div className="jp-gpu-Option">
        <label className="jp-gpu-Option-whole">
          <input
            type="radio"
            name={name}
            value="reserved"
            checked={memory.kind === 'reserved'}
            onChange={() => reserve(value.amount)}
          />
          <span className="jp-gpu-Option-title">{trans.__('Reserved')}</span>
        </label>
        <input
          type="text"
          className="jp-gpu-Input jp-gpu-Option-input"
          aria-label={trans.__('Memory to reserve')}
          placeholder={trans.__('8 GiB or 25%')}
          spellCheck={false}
          value={value.amount}
          onFocus={() => memory.kind !== 'reserved' && reserve(value.amount)}
          onChange={event => reserve(event.target.value)}
        />
      </div>
      {option(WHOLE, trans.__('Whole GPU'), trans.__('nobody else on it'))}
    </div>
  );
}

/** A bare number is meant in GiB, as the placeholder suggests; the sentence below says what it came to. */
function withUnit(amount: string): string {
  return /^\s*\d+([.]\d+)?\s*$/.test(amount) ? `${amount.trim()}GiB` : amount;
}

function freeText(
  device: IDevice,
  isOwn: (lease: ILease) => boolean,
  trans: TranslationBundle
): string {
  if (device.lost) {
    return trans.__('lost');
  }
  const free = reservableBytes(device, isOwn);
  if (free === null) {
    return '';
  }
  return free === 0
    ? trans.__('none free')
    : trans.__('%1 free', readableAmount(free));
}
