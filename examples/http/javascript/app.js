// A component that serves HTTP, in JavaScript: it greets whoever asks, and sends back what is sent to it.
//
// GET /fetch/HOST:PORT/PATH asks another server, which the pod has to be granted (`wasmlet.dev/egress`).

async function answer(request) {
  const url = new URL(request.url);
  if (request.method === "POST") return new Response(await request.arrayBuffer());
  if (url.pathname.startsWith("/fetch/")) {
    try {
      const found = await fetch(`http://${url.pathname.slice(7)}${url.search}`);
      return new Response(await found.arrayBuffer(), { status: found.status });
    } catch (error) {
      return new Response(`${error.message}\n`, { status: 502 });
    }
  }
  return new Response(`Hello from JavaScript: ${url.pathname}${url.search}\n`);
}

addEventListener("fetch", (event) => event.respondWith(answer(event.request)));
