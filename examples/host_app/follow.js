// Follows a job's log in a browser: every line once, across broken connections, until the job's end.
//
//     import { follow } from "./follow.js";
//     follow("/v1/modules/scaimind/jobs/job_1/logs?tail=100", { log: (line) => show(line.message) });
//
// An EventSource connects again by itself and says which event it saw last; the module goes on exactly after
// it, and answers 204 once all was said, which stops the EventSource. A page whose host knows it by a
// cookie needs no more. Without a cookie a ticket opens the stream (POST /stream-tickets). It is good for
// one opening, so for each further one a new one is got, and `after` says where to go on.

const FIRST_DELAY_MS = 1000;
const LONGEST_DELAY_MS = 30000;

// `on` has functions for `log`, `gap` and `end`, each called with the event's data and id, and for
// `closed`, called when nothing more will come. `ticket`, where given, is an async function that gets a
// ticket. Returns a function that stops it all.
export function follow(stream, on, ticket = null) {
  let source = null;
  let last = "";
  let ended = false;
  let stopped = false;
  let delay = FIRST_DELAY_MS;

  function stop() {
    stopped = true;
    source?.close();
  }

  function heard(name, event) {
    delay = FIRST_DELAY_MS;
    last = event.lastEventId || last;
    ended = ended || name === "end";
    on[name]?.(JSON.parse(event.data), event.lastEventId);
  }

  function broken() {
    if (stopped) return;
    if (source.readyState !== EventSource.CLOSED) {
      if (!ticket) return; // it connects again by itself, and says what it saw last
      source.close(); // a used ticket opens nothing
    }
    if (ended) {
      stop();
      on.closed?.();
    } else {
      again();
    }
  }

  function again() {
    setTimeout(open, delay);
    delay = Math.min(2 * delay, LONGEST_DELAY_MS);
  }

  async function open() {
    if (stopped) return;
    const url = new URL(stream, location.href);
    try {
      if (last) url.searchParams.set("after", last);
      if (ticket) url.searchParams.set("ticket", await ticket());
    } catch {
      again();
      return;
    }
    source = new EventSource(url);
    for (const name of ["log", "gap", "end"]) {
      source.addEventListener(name, (event) => heard(name, event));
    }
    source.onerror = broken;
  }

  open();
  return stop;
}
