// What the coordinator is asked, and what it says by itself.

/** An answer that is none; `status` is that of HTTP, if anybody answered. */
export class ApiError extends Error {
    constructor(message, status) {
        super(message);
        this.status = status;
    }
}

/** Longest wait for an answer. */
const PATIENCE_MS = 40000;

async function ask(path, options) {
    let response;
    try {
        response = await fetch(`/api/v1${path}`, { ...options, signal: AbortSignal.timeout(PATIENCE_MS) });
    } catch (error) {
        if (error.name === 'TimeoutError') throw new ApiError(`no answer within ${PATIENCE_MS / 1000} s`);
        throw new ApiError('the coordinator does not answer');
    }
    if (response.status === 401) {
        location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
        throw new ApiError('this session is over');
    }
    if (!response.ok) {
        const text = await response.text();
        let message = text.trim() || response.statusText;
        try {
            message = JSON.parse(text).error;
        } catch {
            // Said in plain text.
        }
        throw new ApiError(message, response.status);
    }
    return response;
}

export async function get(path) {
    return (await ask(path)).json();
}

export async function text(path) {
    return (await ask(path)).text();
}

export async function post(path, body) {
    const headers = { 'x-muster-request': '1', 'content-type': 'application/json' };
    const response = await ask(path, {
        method: 'POST',
        headers,
        body: body ? JSON.stringify(body) : undefined,
    });
    return response.json();
}

/** Text behind a `?`, of what is there. */
export function query(values) {
    const all = Object.entries(values).filter(
        ([, value]) => value !== '' && value !== null && value !== undefined,
    );
    return all.length ? `?${new URLSearchParams(all)}` : '';
}

/** Events of a stream until it is closed; `onlink` hears whether it is there. */
export function stream(path, name, onevent, onlink) {
    const source = new EventSource(`/api/v1${path}`);
    source.addEventListener(name, (event) => onevent(JSON.parse(event.data)));
    source.addEventListener('open', () => onlink?.(true));
    source.addEventListener('error', () => {
        onlink?.(false);
        // Refused rather than cut: ask once, which leads to the login if that is why.
        if (source.readyState === EventSource.CLOSED) {
            setTimeout(() => ask('/session').catch(() => {}), 1000);
        }
    });
    return source;
}
