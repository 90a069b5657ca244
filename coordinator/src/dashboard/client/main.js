// Which page an address means, and when it is looked at again.

import { get, stream } from './api.js';
import { cluster } from './cluster.js';
import { failure, h, link } from './elements.js';
import { experiment } from './experiment.js';
import { experiments } from './experiments.js';
import { bindTheme } from './theme.js';
import { trial } from './trial.js';

/** Shortest time between two looks: what a reader can follow. */
const PACE_MS = 1500;
/** So much longer than a look takes one waits for the next: many open pages must not keep the coordinator busy. */
const REST = 5;

const main = document.getElementById('main');
const linkState = document.getElementById('link');
const shown = { page: null, isLooking: false, isStale: false, lookedAt: 0, took: 0, timer: null };
let session = { may_act: false, asks_for_tokens: false };

function page() {
    const parts = location.pathname.split('/').filter(Boolean).map(decodeURIComponent);
    if (parts.length === 0) return ['experiments', () => experiments(session)];
    if (parts[0] === 'cluster') return ['cluster', () => cluster(session)];
    if (parts[0] === 'experiments' && parts.length === 2) {
        return ['experiments', () => experiment(parts[1], session)];
    }
    if (parts[0] === 'experiments' && parts[2] === 'trials' && parts.length === 4) {
        return ['experiments', () => trial(parts[1], parts[3], session)];
    }
    return ['', () => ({ title: 'Nothing here', element: nothing('There is no such page.') })];
}

/** In place of a page that is not there. */
function nothing(text) {
    return h(
        'div',
        { class: 'page' },
        h('h1', null, 'Nothing here'),
        h('p', { class: 'notice', role: 'alert' }, text),
        h('p', null, link('/', 'All experiments'), ', ', link('/cluster', 'the cluster')),
    );
}

function show() {
    shown.page?.dispose?.();
    clearTimeout(shown.timer);
    Object.assign(shown, { isLooking: false, isStale: false, lookedAt: 0, took: 0, timer: null });
    const [name, make] = page();
    const made = make();
    shown.page = made;
    document.title = `${made.title} - Muster`;
    for (const item of document.querySelectorAll('nav a')) {
        if (item.dataset.page === name) item.setAttribute('aria-current', 'page');
        else item.removeAttribute('aria-current');
    }
    main.replaceChildren(made.element);
    if (!made.refresh) main.dataset.ready = 'true';
    look();
}

/** Looks again, soon but not all the time, and not while nobody sees it. */
async function look() {
    const made = shown.page;
    if (!made?.refresh) return;
    shown.isStale = true;
    if (shown.isLooking || shown.timer || document.hidden) return;
    const wait = shown.lookedAt + Math.max(PACE_MS, REST * shown.took) - Date.now();
    if (wait > 0) {
        shown.timer = setTimeout(() => {
            shown.timer = null;
            look();
        }, wait);
        return;
    }
    Object.assign(shown, { isLooking: true, isStale: false, lookedAt: Date.now() });
    try {
        await made.refresh();
        main.dataset.ready = 'true';
        main.querySelector(':scope > .notice')?.remove();
    } catch (error) {
        if (shown.page === made && error.status === 404) {
            main.replaceChildren(nothing(error.message));
            main.dataset.ready = 'true';
            shown.page = { dispose: made.dispose };
            return;
        }
        if (shown.page === made) {
            main.querySelector(':scope > .notice')?.remove();
            main.prepend(failure(error));
        }
    }
    if (shown.page !== made) return;
    Object.assign(shown, { isLooking: false, took: Date.now() - shown.lookedAt });
    if (shown.isStale) look();
}

/** Links within the dashboard do not load the document anew. */
function follow(event) {
    const target = event.target.closest?.('a[href]');
    const isPlain =
        event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
    if (!target || !isPlain || target.origin !== location.origin || target.target || target.hash) return;
    if (target.pathname.startsWith('/assets') || target.pathname.startsWith('/api')) return;
    event.preventDefault();
    go(target.pathname + target.search);
}

export function go(address) {
    history.pushState(null, '', address);
    delete main.dataset.ready;
    show();
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
}

function linked(isThere) {
    linkState.textContent = isThere ? 'live' : 'not connected, trying again';
    linkState.classList.toggle('lost', !isThere);
}

async function begin() {
    bindTheme(document.getElementById('theme'));
    document.addEventListener('click', follow);
    document.addEventListener('go', (event) => go(event.detail));
    document.addEventListener('look', look);
    document.addEventListener('visibilitychange', () => {
        if (!document.hidden && shown.isStale) look();
    });
    addEventListener('popstate', show);
    try {
        session = await get('/session');
    } catch (error) {
        main.replaceChildren(failure(error));
        return;
    }
    if (session.asks_for_tokens) {
        document.getElementById('leave').hidden = false;
        document.getElementById('who').textContent = session.may_act
            ? session.name
            : `${session.name} (looks only)`;
    }
    show();
    stream('/events', 'change', look, linked);
}

begin();
