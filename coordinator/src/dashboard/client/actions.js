// What a reader may do, each asked for once more before it is done.

import { post } from './api.js';
import { freshId, h, toast } from './elements.js';

/** Asks in a dialog; `fields` are elements with a name, whose values `act` gets. */
function confirm({ title, text, fields = [], verb, danger, act, preview }) {
    const id = freshId('dialog');
    const said = h('p', { class: 'notice', role: 'alert', hidden: true });
    const go = h('button', { class: danger ? 'danger' : 'primary', value: 'go' }, verb);
    const cancel = h('button', { type: 'button', onclick: () => dialog.close() }, 'Leave it');
    const form = h(
        'form',
        { method: 'dialog' },
        h('h2', { id }, title),
        h('p', null, text),
        fields,
        said,
        h('div', { class: 'buttons' }, preview ?? null, cancel, go),
    );
    const dialog = h('dialog', { 'aria-labelledby': id }, form);
    form.addEventListener('submit', async (event) => {
        event.preventDefault();
        go.disabled = true;
        said.hidden = true;
        try {
            const done = await act(Object.fromEntries(new FormData(form)));
            dialog.close();
            toast(done.message);
            if (done.experiment)
                document.dispatchEvent(new CustomEvent('go', { detail: `/experiments/${done.experiment}` }));
            else document.dispatchEvent(new CustomEvent('look'));
        } catch (error) {
            said.textContent = error.message;
            said.hidden = false;
            go.disabled = false;
        }
    });
    const before = document.activeElement;
    dialog.addEventListener('close', () => {
        dialog.remove();
        // The button may have been made anew meanwhile.
        const again = document.querySelector(`[data-action="${before?.dataset?.action}"]`);
        if (!before?.isConnected) again?.focus();
    });
    document.body.append(dialog);
    dialog.showModal();
    return { form, said };
}

const TEXTS = {
    pause: ['Pause', 'Running trials save themselves and leave their slots. Nothing is lost.'],
    resume: ['Resume', 'It gets slots again when it is its turn.'],
    cancel: ['Cancel', 'It ends for good. What it has reached so far is kept.'],
};

/** What is resumed where a search is over and nothing was written of it. */
const WRITE = 'The model of its best trial is scored and written again. Nothing is trained, and all results stay.';

function simple(path, name, verb, instead) {
    const [word, usual] = TEXTS[verb];
    const text = instead ?? usual;
    confirm({
        title: `${word} ${name}?`,
        text,
        verb: word,
        danger: verb === 'cancel',
        act: () => post(`${path}/${verb}`),
    });
}

function prioritize(path, name, priority) {
    const field = h(
        'label',
        { class: 'field' },
        h('span', null, 'Priority'),
        h('input', { name: 'priority', type: 'number', value: priority, step: 1, required: true }),
    );
    confirm({
        title: `Priority of ${name}`,
        text: 'Those with more go first and take the slots of those with less; what is preempted saves itself.',
        fields: [field],
        verb: 'Set',
        act: ({ priority }) => post(`${path}/priority`, { priority: Number(priority) }),
    });
}

function changes(values) {
    return values.set
        .split('\n')
        .map((line) => line.trim())
        .filter(Boolean);
}

function fork(path, name, isTrial) {
    const field = h(
        'label',
        { class: 'field tall' },
        h('span', null, 'Changes of the manifest, one KEY=VALUE a line'),
        h('textarea', { name: 'set', rows: 4, spellcheck: 'false', placeholder: 'budget.epochs=3' }),
    );
    const shown = { class: 'code', hidden: true, tabindex: '0', role: 'group', 'aria-label': 'The new manifest' };
    const text = h('pre', shown);
    const preview = h('button', { type: 'button', onclick: look }, 'Show the manifest');
    const { form, said } = confirm({
        title: `Fork ${name}?`,
        text: isTrial
            ? 'A new experiment of one trial, with the hyperparameters of this one as constants.'
            : 'A new experiment with the same manifest, in the same project.',
        fields: [field, text],
        verb: 'Fork',
        preview,
        act: (values) => post(`${path}/fork`, { set: changes(values) }),
    });
    async function look() {
        said.hidden = true;
        try {
            const set = changes(Object.fromEntries(new FormData(form)));
            text.textContent = (await post(`${path}/fork`, { set, preview: true })).manifest;
            text.hidden = false;
        } catch (error) {
            said.textContent = error.message;
            said.hidden = false;
        }
    }
}

function button(text, onclick, kind) {
    return h('button', { onclick, class: kind, 'data-action': text.toLowerCase() }, text);
}

function bar(name, buttons) {
    return h('div', { class: 'buttons', role: 'group', 'aria-label': `Actions on ${name}` }, buttons);
}

/** Buttons for an experiment; none for those who only look. */
export function experimentActions(experiment, session) {
    if (!session.may_act) return null;
    const { id, paused, priority, lacks_model: lacksModel } = experiment;
    const path = `/experiments/${id}`;
    const isOpen = experiment.ended_at_ms === null;
    return bar(id, [
        isOpen && button(paused ? 'Resume' : 'Pause', () => simple(path, id, paused ? 'resume' : 'pause')),
        lacksModel && button('Resume', () => simple(path, id, 'resume', WRITE)),
        isOpen && button('Priority', () => prioritize(path, id, priority)),
        button('Fork', () => fork(path, id, false)),
        isOpen && button('Cancel', () => simple(path, id, 'cancel'), 'danger'),
    ]);
}

/** Buttons for a trial; none for those who only look. */
export function trialActions(trial, session) {
    if (!session.may_act) return null;
    const name = `${trial.experiment}/t${trial.number}`;
    const path = `/experiments/${trial.experiment}/trials/${trial.number}`;
    const isOpen = !trial.experiment_ended && ['running', 'pending', 'paused'].includes(trial.state);
    return bar(name, [
        isOpen &&
            button(trial.held ? 'Resume' : 'Pause', () =>
                simple(path, name, trial.held ? 'resume' : 'pause'),
            ),
        button('Fork', () => fork(path, name, true)),
        isOpen && button('Cancel', () => simple(path, name, 'cancel'), 'danger'),
    ]);
}
