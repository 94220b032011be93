// What the page says to the server: questions, and decisions one after the other until each of them is kept.

const PAUSE = 1000;
const BUSY = [429, 503];

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const pause = () => new Promise((go) => setTimeout(go, PAUSE));

function fetchJson(path, sent) {
  if (sent === undefined) return fetch(path);
  return fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(sent) });
}

/** An answer to a question or to something sent; patient with a busy server. */
export async function ask(path, sent) {
  for (;;) {
    const response = await fetchJson(path, sent);
    if (response.ok) return response.json();
    if (!BUSY.includes(response.status)) throw new Refused(response.status, await response.text());
    await pause();
  }
}

/** Sends decisions in their order; a server that does not answer is asked again until it does. */
export class Outbox {
  constructor(onChange) {
    this.waiting = 0;
    this.unreachable = false;
    this.onChange = onChange;
    this.tail = Promise.resolve();
  }

  /** What the server made of it; `make` says what to send when its turn has come. */
  send(path, make) {
    this.waiting += 1;
    this.onChange();
    const kept = this.tail.then(() => this.persist(path, make));
    this.tail = kept.catch(() => {});
    return kept;
  }

  async persist(path, make) {
    for (;;) {
      try {
        const answer = await ask(path, make());
        this.settle();
        return answer;
      } catch (error) {
        if (error instanceof Refused) {
          // a refused token means that nothing will be kept any more, and the count must go on saying so
          if (error.status !== 403) this.settle();
          throw error;
        }
        this.unreachable = true;
        this.onChange();
        await pause();
      }
    }
  }

  settle() {
    this.waiting -= 1;
    this.unreachable = false;
    this.onChange();
  }
}
