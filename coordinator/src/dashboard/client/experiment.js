// One experiment: how it goes, and what can be learned from it.

import { experimentActions } from './actions.js';
import { get, text } from './api.js';
import { comparison } from './comparison.js';
import { badge, empty, failure, fill, h, section, tile, tiles, trialLink } from './elements.js';
import { stateOf } from './experiments.js';
import { duration, moment, number, percent, score, whole, words } from './format.js';
import { ladder, savings } from './ladder.js';
import { learning } from './learning.js';
import { history, importance, parallel, plane } from './space.js';
import { timeline } from './timeline.js';
import { trialTable } from './trials.js';

export function experiment(id, session) {
    const state = { experiment: null, compared: new Set(), metric: 'results', names: [] };
    const title = h('div', { class: 'head' });
    const facts = h('div');
    const about = setup(id);
    const curves = learning(id, state);
    const rungs = ladder(id);
    const spread = parallel(id);
    const matter = importance();
    const two = plane(id);
    const course = history(id);
    const slots = timeline('Timeline of slots', false);
    const compare = comparison(id, state);
    const trials = trialTable(id, state, compare);
    const decided = decisions(id);
    const parts = [curves, rungs, spread, matter, two, course, slots, compare];
    const element = h(
        'div',
        { class: 'page' },
        title,
        facts,
        h(
            'div',
            { class: 'grid' },
            h('div', { class: 'wide' }, curves.element),
            h('div', { class: 'wide' }, trials.element),
            compare.element,
            rungs.element,
            matter.element,
            h('div', { class: 'wide' }, spread.element),
            two.element,
            course.element,
            h('div', { class: 'wide' }, slots.element),
            decided.element,
            about.element,
        ),
    );

    async function refresh() {
        const answer = await get(`/experiments/${id}`);
        state.experiment = answer;
        fill(
            title,
            h(
                'div',
                null,
                h('h1', null, id, ' ', badge(stateOf(answer))),
                answer.description ? h('p', { class: 'note' }, answer.description) : null,
                answer.reason ? h('p', { class: 'notice' }, answer.reason) : null,
            ),
            experimentActions(answer, session),
        );
        fill(facts, figures(answer));
        decided.update(answer);
        about.update(answer);
        // Each is drawn as soon as it is there: shares of thousands of results take a moment.
        const points = get(`/experiments/${id}/points?limit=500`);
        const shares = get(`/experiments/${id}/importance`);
        await Promise.all([
            curves.refresh(),
            rungs.refresh(),
            trials.refresh(),
            compare.refresh(),
            points.then((all) => spread.update({ experiment: answer, points: all })),
            points.then((all) => course.update({ experiment: answer, points: all })),
            shares.then((all) => matter.update(all)),
            Promise.all([points, shares]).then(([all, { shares }]) =>
                two.update({ experiment: answer, points: all, shares }),
            ),
            get(`/experiments/${id}/timeline`).then((spans) => slots.update(spans)),
        ]);
    }

    return { title: id, element, refresh, dispose: () => parts.forEach((part) => part.dispose()) };
}

function figures(answer) {
    const best = answer.best;
    const { metric, mode } = answer.objectives[0];
    const took = ((answer.ended_at_ms ?? answer.now_ms) - answer.created_at_ms) / 1000;
    return tiles(
        tile(
            `Best ${words(metric)} (${mode})`,
            best
                ? [
                      score(best.objective),
                      ' ',
                      trialLink(answer.id, best.trial),
                      h('small', null, `validation split, step ${number(best.step)}`),
                  ]
                : '-',
        ),
        best && best.test !== null
            ? tile(
                  `Test ${words(metric)}`,
                  [
                      score(best.test),
                      answer.data ? h('small', null, `of ${whole(answer.data.num_test)} examples, scored once`) : null,
                  ],
                  'Scored once, for the chosen trial',
              )
            : null,
        tile('Trials', [
            `${whole(answer.num_trials)} of ${whole(answer.max_trials)}`,
            h(
                'small',
                null,
                Object.entries(answer.trials)
                    .map(([state, count]) => `${count} ${state}`)
                    .join(', '),
            ),
        ]),
        tile(answer.ended_at_ms === null ? 'Running for' : 'Took', [
            duration(took),
            answer.seconds_left === null
                ? null
                : h('small', null, `about ${duration(answer.seconds_left)} left`),
        ]),
        answer.ended_at_ms === null
            ? tile('Slots', [
                  number(answer.slots),
                  h('small', null, `${duration(answer.slot_seconds)} of slot time used`),
              ])
            : tile('Slot time', duration(answer.slot_seconds)),
        answer.ended_at_ms === null
            ? tile('Speed', [number(answer.examples_per_second), h('small', null, 'examples/s')])
            : null,
        tile('Saved by early stopping', [
            percent(answer.savings.saved_share),
            h('small', null, savings(answer.savings, duration)),
        ]),
    );
}

function decisions(id) {
    const list = h('ol', { class: 'decisions', tabindex: '0', 'aria-label': 'Decisions, the newest first' });
    const none = empty('nothing yet');
    const note = h('p', { class: 'note' });
    return {
        element: section('What was decided', null, list, none, note),
        update(answer) {
            fill(
                list,
                answer.decisions.map((one) =>
                    h(
                        'li',
                        null,
                        h('time', null, moment(one.at_ms)),
                        ' ',
                        one.trial === null ? null : [trialLink(id, one.trial), ': '],
                        one.text,
                    ),
                ),
            );
            const more = answer.num_decisions - answer.decisions.length;
            list.hidden = !answer.decisions.length;
            none.hidden = !list.hidden;
            note.hidden = more <= 0;
            note.textContent = `${more} earlier ones; a trial's page has all of that trial`;
        },
    };
}

function range(one) {
    if (one.values.length && ['values', 'words'].includes(one.kind)) return one.values.map(number).join(', ');
    return `${number(one.min)} to ${number(one.max)}${one.log ? ', log scale' : ''}`;
}

function setup(id) {
    const list = h('dl', { class: 'facts' });
    const code = h('pre', { class: 'code', tabindex: '0', role: 'group', 'aria-label': 'Manifest' });
    const fold = h('details', { class: 'behind' }, h('summary', null, 'Manifest'), code);
    fold.addEventListener('toggle', async () => {
        if (!fold.open || code.textContent) return;
        try {
            code.textContent = await text(`/experiments/${id}/manifest`);
        } catch (error) {
            code.replaceWith(failure(error));
        }
    });
    return {
        element: section('Set-up', null, list, fold),
        update: (answer) => fill(list, facts(answer)),
    };
}

function facts(answer) {
    const row = (name, value) => [h('dt', null, name), h('dd', null, value)];
    const data = answer.data;
    const constants = Object.entries(answer.constants).map(([name, value]) => `${words(name)} ${number(value)}`);
    return [
        row(
            'Searched',
            h(
                'ul',
                null,
                answer.parameters.map((one) => h('li', null, `${words(one.name)}: ${range(one)}`)),
            ),
        ),
        constants.length ? row('Constant', constants.join(', ')) : null,
        row('Sampler, pruner', `${answer.sampler}, ${answer.pruner}`),
        row('Model', answer.model),
        row('Seed', answer.seed),
        row('A trial takes', answer.slots_per_trial),
        answer.constraints.length ? row('Constraints', answer.constraints.join('; ')) : null,
        data
            ? row('Examples', [
                  `${whole(data.num_train)} train, `,
                  `${whole(data.num_validation)} validation, ${whole(data.num_test)} test`,
              ])
            : null,
        data?.labels.length ? row('Classes', data.labels.join(', ')) : null,
        data?.remarks.length ? row('Remarks on the data', data.remarks.join('; ')) : null,
        row('Project, priority', `${answer.project ?? 'none'}, ${answer.priority}`),
        row('Files', answer.location),
        answer.best?.model ? row('Best model', answer.best.model) : null,
        answer.warnings.length ? row('Warnings', answer.warnings.join('; ')) : null,
    ];
}
