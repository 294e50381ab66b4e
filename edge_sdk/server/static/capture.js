// Runs in the audio thread: collects 100 ms and passes them on with their number on the audio clock.

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(sampleRate / 10);
    this.begin(0);
  }

  begin(first) {
    this.first = first;
    this.count = 0;
    this.samples = new Float32Array(this.size);
  }

  process(inputs) {
    const input = inputs[0][0];
    if (!input) {
      return true;
    }
    if (this.count === 0 || currentFrame !== this.first + this.count) {
      this.send();
      this.begin(currentFrame);
    }
    for (let i = 0; i < input.length; i++) {
      this.samples[this.count++] = input[i];
      if (this.count === this.size) {
        this.send();
        this.begin(currentFrame + i + 1);
      }
    }
    return true;
  }

  send() {
    if (this.count) {
      this.port.postMessage({ first: this.first, samples: this.samples.slice(0, this.count) });
      this.count = 0;
    }
  }
}

registerProcessor("stetho-capture", Capture);
