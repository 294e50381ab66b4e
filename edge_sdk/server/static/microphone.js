// This device's microphone as numbered 16-bit frames, without the browser's noise suppression.

const RATE = 8000;

export class Microphone {
  async open(onFrame) {
    if (!navigator.mediaDevices) {
      throw new Error("the browser gives no microphone to pages without TLS; start the server with --cert and --key");
    }
    this.media = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    this.context = new AudioContext({ sampleRate: RATE });
    await this.context.audioWorklet.addModule("/static/capture.js");
    const node = new AudioWorkletNode(this.context, "stetho-capture", { numberOfOutputs: 0 });
    this.begin = null;
    node.port.onmessage = ({ data }) => {
      this.begin = this.begin === null ? data.first : this.begin;
      const message = new DataView(new ArrayBuffer(8 + 2 * data.samples.length));
      message.setBigUint64(0, BigInt(data.first - this.begin), true);
      data.samples.forEach((x, i) => message.setInt16(8 + 2 * i, Math.max(-1, Math.min(1, x)) * 32767, true));
      onFrame(message.buffer);
    };
    this.context.createMediaStreamSource(this.media).connect(node);
    return { rate: this.context.sampleRate, format: "s16le", channels: 1, numbered: true };
  }

  async close() {
    if (this.media) {
      this.media.getTracks().forEach((track) => track.stop());
      await this.context.close();
      this.media = null;
    }
  }
}
