// Hosts, slots, what they do, and why others wait.

import { get } from './api.js';
import { badge, empty, experimentLink, fill, h, section, tile, tiles, trialLink } from './elements.js';
import { duration, moment, number } from './format.js';
import { table } from './table.js';
import { timeline } from './timeline.js';

export function cluster() {
    const facts = h('div');
    const notes = h('div');
    const hosts = h('div');
    const waiting = table('Experiments that have not ended', WAITING, {
        empty: 'Nobody waits: every experiment has ended.',
    });
    const spans = timeline('What the slots did', true);
    const element = h(
        'div',
        { class: 'page' },
        h('h1', null, 'Cluster'),
        facts,
        notes,
        section('Why things wait', null, waiting.element),
        hosts,
        spans.element,
    );

    async function refresh() {
        const [answer, times] = await Promise.all([get('/cluster'), get('/timeline')]);
        fill(
            facts,
            tiles(
                tile('Hosts', number(answer.hosts.length)),
                tile('Slots', [number(answer.num_slots), h('small', null, `${answer.num_busy} working`)]),
                tile('Speed', [
                    number(answer.examples_per_second),
                    h('small', null, 'examples/s, all trials'),
                ]),
                tile('Open experiments', number(answer.waiting.length)),
            ),
        );
        fill(
            notes,
            answer.notes.map((note) => h('p', { class: 'notice' }, note)),
        );
        waiting.update(answer.waiting);
        fill(
            hosts,
            answer.hosts.length
                ? answer.hosts.map((host) => one(host, answer.now_ms))
                : section('Hosts', null, empty('No worker is connected. `muster-worker supervise` starts one.')),
        );
        await spans.update(times);
    }

    return { title: 'Cluster', element, refresh, dispose: spans.dispose };
}

function one(host, now) {
    const columns = [
        { title: 'Slot', head: true, cell: (row) => row.worker },
        { title: 'State', cell: (row) => badge(row.state) },
        { title: 'Does', cell: (row) => work(row) },
        {
            title: 'Step',
            number: true,
            cell: (row) => (row.step === null ? '-' : `${number(row.step)} of ${number(row.target_step)}`),
        },
        { title: 'Examples/s', number: true, cell: (row) => number(row.examples_per_second) },
        {
            title: 'Running for',
            number: true,
            cell: (row) => (row.started_at_ms === null ? '-' : duration((now - row.started_at_ms) / 1000)),
        },
    ];
    const made = table(`Slots of ${host.name}`, columns, { empty: 'No slot of it is connected.' });
    made.update(host.slots);
    const aside =
        host.aside_until_ms === null
            ? null
            : h(
                  'p',
                  { class: 'notice' },
                  `Set aside until ${moment(host.aside_until_ms)}: ${host.num_failures} failures.`,
              );
    return section(host.name ? `Host ${host.name}` : 'A host without a name', null, aside, made.element);
}

function work(row) {
    if (row.experiment === null) return '-';
    return [
        experimentLink(row.experiment),
        row.trial === null ? ` ${row.task}` : [' ', trialLink(row.experiment, row.trial)],
        row.trial !== null && row.task !== 'train' ? ` ${row.task}` : null,
        row.rank ? ` rank ${row.rank}` : null,
    ];
}

const WAITING = [
    { title: 'Experiment', head: true, cell: (row) => experimentLink(row.experiment) },
    {
        title: 'Waits for',
        cell: (row) => h('span', { class: 'words' }, row.reason || 'nothing, it has what it wants'),
    },
    { title: 'Project', cell: (row) => row.project ?? '-' },
    { title: 'Priority', number: true, cell: (row) => number(row.priority) },
    { title: 'Slots', number: true, cell: (row) => number(row.slots) },
    { title: 'Running', number: true, cell: (row) => number(row.num_running) },
    { title: 'Pending', number: true, cell: (row) => number(row.num_pending) },
];
