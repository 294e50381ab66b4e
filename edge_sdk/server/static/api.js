// Requests to the server; every failure becomes an Error with the server's own line.

async function answer(response) {
  if (response.status === 401) {
    location.replace("/login");
  }
  let body = {};
  try {
    body = await response.json();
  } catch (error) {
    body = { message: `the server's answer cannot be read (${response.status})` };
  }
  if (!response.ok) {
    throw new Error(body.message || `the server refused (${response.status})`);
  }
  return body;
}

export async function get(path) {
  return answer(await fetch(path));
}

export async function post(path, body = {}) {
  const options = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  return answer(await fetch(path, options));
}

export function webSocket(path) {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`);
  socket.binaryType = "arraybuffer";
  return socket;
}

// Uploads one file; XMLHttpRequest because fetch reports no progress of what it sends.
export function upload(file, query, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/recordings?${new URLSearchParams({ ...query, name: file.name })}`);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded / Math.max(1, event.total)));
    request.addEventListener("error", () => reject(new Error(`${file.name}: the connection was cut`)));
    request.addEventListener("load", () => {
      let body = {};
      try {
        body = JSON.parse(request.responseText);
      } catch (error) {
        body = { message: `${file.name}: refused (${request.status})` };
      }
      const state = (body.uploads || [])[0];
      if (request.status === 202 && state) {
        resolve(state);
      } else {
        const failure = new Error((state && state.message) || body.message || `refused (${request.status})`);
        failure.status = request.status;
        reject(failure);
      }
    });
    request.send(file);
  });
}
