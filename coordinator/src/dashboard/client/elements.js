// Elements of a page. Text is only ever set as text, so nothing that a manifest or a log says becomes markup.

/** `h('a', { href: '/', class: 'x', onclick: f }, 'text', other)`; what is `null` or `false` is left out. */
export function h(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
        if (value === null || value === undefined || value === false) continue;
        if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
        else if (value === true) element.setAttribute(name, '');
        else element.setAttribute(name, value);
    }
    put(element, ...children);
    return element;
}

function flat(children) {
    return children
        .flat(Infinity)
        .filter((child) => child !== null && child !== undefined && child !== false);
}

export function put(element, ...children) {
    element.append(...flat(children));
}

/** What one can get to with the keyboard. */
const FOCUSABLE = 'a[href], button, input, select, textarea, summary, [tabindex]';

/** What is told apart among what one can get to: its place, and what it is called. */
const called = (element) => element.ariaLabel || element.textContent.trim();

/** Puts `nodes` in place of what is there; who was in it with the keyboard stays there. */
export function replace(element, ...nodes) {
    const focused = element.contains(document.activeElement) ? document.activeElement : null;
    const all = focused ? [...element.querySelectorAll(FOCUSABLE)] : [];
    const [place, name] = focused ? [all.indexOf(focused), called(focused)] : [-1, ''];
    element.replaceChildren(...nodes);
    if (place < 0 || document.activeElement === focused) return;
    const fresh = [...element.querySelectorAll(FOCUSABLE)];
    const same = [fresh[place], ...fresh].find((one) => one && called(one) === name);
    (same ?? fresh[place])?.focus({ preventScroll: true });
}

/** Puts children in place of those that are there, unless that would change nothing. */
export function fill(element, ...children) {
    const fresh = document.createElement(element.tagName);
    put(fresh, ...children);
    if (fresh.innerHTML === element.innerHTML && !fresh.querySelector('input, button, select')) return;
    replace(element, ...fresh.childNodes);
}

/** A sentence in which commands stand between backticks. */
export function phrase(text) {
    return text.split('`').map((part, index) => (index % 2 ? h('code', null, part) : part));
}

/** The word for a state with its colour. */
export function badge(state) {
    return h('span', { class: `badge ${state.replace(' ', '-')}` }, state);
}

export function empty(text) {
    return h('p', { class: 'empty' }, phrase(text));
}

let count = 0;

export function freshId(stem) {
    count += 1;
    return `${stem}-${count}`;
}

/** A part of a page with a heading that names it. Made anew it is the same, so `fill` sees when nothing has changed. */
export function section(title, attributes, ...children) {
    const id = `part-${title.replaceAll(/\s+/g, '-')}`;
    return h(
        'section',
        { ...attributes, class: `card ${attributes?.class ?? ''}`, 'aria-labelledby': id },
        h('h2', { id }, title),
        ...children,
    );
}

/** A figure with its name below it. */
export function tile(label, value, hint) {
    return h('div', { class: 'tile', title: hint }, h('dt', null, label), h('dd', null, value));
}

export function tiles(...pairs) {
    return h('dl', { class: 'tiles' }, ...pairs);
}

export function select(label, options, value, onchange) {
    const id = freshId('choice');
    const element = h(
        'select',
        { id, onchange: () => onchange(element.value) },
        options.map(([name, text]) => h('option', { value: name, selected: name === value }, text)),
    );
    return h('span', { class: 'field' }, h('label', { for: id }, label), element);
}

export function link(href, ...children) {
    return h('a', { href }, ...children);
}

export function experimentLink(id) {
    return link(`/experiments/${id}`, id);
}

export function trialLink(experiment, number) {
    return link(`/experiments/${experiment}/trials/${number}`, `t${number}`);
}

export function toast(text, kind = 'good') {
    const note = h('p', { class: `toast ${kind}` }, text);
    document.getElementById('toasts').append(note);
    setTimeout(() => note.remove(), kind === 'good' ? 6000 : 12000);
}

/** What went wrong, in place of what was asked for. */
export function failure(error) {
    return h('p', { class: 'notice', role: 'alert' }, error.message);
}
