/* Reference firmware: a stethoscope whose converter reads an embedded audio table. Boards differ in board.c only.
 *
 * The interrupt is the converter: it fills one buffer and hands it over when full, as DMA would, then goes on with the
 * next. The main loop encodes and sends. If no buffer is free by then, the block is dropped and counted; the sample
 * index goes on, so the host can count exactly what is missing.
 */
#include "board.h"
#include "stetho_link.h"

#include <string.h>

#define TABLE_RATE 16000u
#define MAX_BLOCK 160u /* 10 ms at 16 kHz */
#ifndef BUFFERS
/* Each holds 10 ms in 330 bytes. A power of two: 2 is a double buffer, more bridge a longer pause of the host. */
#define BUFFERS 32u
#endif
#define SECOND_NS 1000000000u
#define GAIN_STEP_CDB 602
#define GAIN_STEPS 4

extern const int16_t lung_table[], lung_table_end[];

/* --- The converter: interrupt side ------------------------------------------------------------------------------ */

typedef struct {
    int16_t samples[MAX_BLOCK];
    uint64_t first;
} buffer;

static buffer buffers[BUFFERS];
static volatile uint32_t filled, sent; /* blocks since the start; the interrupt writes the first, the main loop the second */
static volatile uint8_t running;
static volatile uint32_t overruns;
static uint64_t captured; /* the sample clock */
static uint32_t table_at, table_step, block, fill;

/* The compiler moves no access of the buffers across this. */
static void barrier(void)
{
    board_unlock(board_lock());
}

void adc_samples(uint32_t count)
{
    const uint32_t table_size = (uint32_t)(lung_table_end - lung_table);
    if (running == 0u) {
        return;
    }
    for (uint32_t i = 0u; i < count; i++) {
        buffer *b = &buffers[filled % BUFFERS];
        if (fill == 0u) {
            b->first = captured;
        }
        b->samples[fill] = lung_table[table_at];
        table_at += table_step;
        table_at -= (table_at >= table_size) ? table_size : 0u;
        captured++;
        fill++;
        if (fill == block) {
            fill = 0u;
            if ((filled - sent) == (BUFFERS - 1u)) {
                overruns++; /* no buffer is free: this one is overwritten */
            } else {
                barrier();
                filled++;
            }
        }
    }
}

static uint64_t sample_clock(void)
{
    const uint32_t before = board_lock();
    const uint64_t now = captured;
    board_unlock(before);
    return now;
}

/* --- The link: main loop side --------------------------------------------------------------------------------------- */

static sl_decoder decoder;
static uint8_t payload[4u + 4u + (3u * MAX_BLOCK)];
static uint8_t wire[SL_WIRE_BOUND(sizeof payload)];
static uint16_t next_seq;
static uint8_t streaming, discontinuity;
static uint32_t boot_id, reported_overruns;
static sl_adpcm adpcm;
static sl_format format = {0u, TABLE_RATE, 1u, 16u, 1u, SL_CODEC_S16, 0u, 0, MAX_BLOCK};

static void send(uint8_t type, uint8_t flags, uint64_t index, size_t size)
{
    sl_frame frame = {SL_VERSION, 0u, 0u, 0u, 0u, 0u, payload, 0u};
    frame.type = type;
    frame.flags = flags;
    frame.seq = next_seq++;
    frame.sample_index = index;
    frame.payload_size = size;
    board_send(wire, sl_frame_encode(&frame, wire, sizeof wire));
}

static void send_info(void)
{
    static const uint32_t rates[3] = {4000u, 8000u, 16000u};
    sl_info info = {SL_MAJOR, SL_MAJOR, {1u, 0u, 0u}, 0u, 0u, "QEMU-0001", "mps2-an385", 3u, rates};
    info.capabilities = SL_CAN_S16 | SL_CAN_S24 | SL_CAN_ADPCM | SL_CAN_GAIN | SL_CAN_SET_FORMAT;
    info.boot_id = boot_id;
    send(SL_INFO, 0u, sample_clock(), sl_put_info(payload, sizeof payload, &info));
}

static void send_format(void)
{
    send(SL_FORMAT, 0u, sample_clock(), sl_put_format(payload, sizeof payload, &format));
}

static void send_status(void)
{
    sl_status status = {0u, 0u, 0u, 0u, SL_UNKNOWN, SL_UNKNOWN, SL_UNKNOWN_TEMPERATURE, SL_STREAMING};
    status.uptime_us = board_ns() / 1000u;
    status.overruns = overruns;
    send(SL_STATUS, 0u, sample_clock(), sl_put_status(payload, sizeof payload, &status));
    if (status.overruns != reported_overruns) {
        const uint32_t more = status.overruns - reported_overruns;
        reported_overruns = status.overruns;
        send(SL_EVENT, 0u, sample_clock(), sl_put_event(payload, sizeof payload, SL_OVERRUN, (int32_t)more));
    }
}

static void reply(const sl_command *command, uint8_t code)
{
    const size_t size = sl_put_reply(payload, sizeof payload, command->type, code, command->seq);
    send((code == SL_DONE) ? SL_ACK : SL_NACK, 0u, sample_clock(), size);
}

/* A number that differs from start to start: the arrival time of the host's bytes, to 40 ns, is random enough. */
static uint32_t draw_id(void)
{
    uint32_t x = (uint32_t)(board_ns() / 40u) + 0x9E3779B9u;
    x ^= x >> 16;
    x *= 0x85EBCA6Bu;
    x ^= x >> 13;
    x *= 0xC2B2AE35u;
    x ^= x >> 16;
    return (x == 0u) ? 1u : x;
}

/* --- Commands ------------------------------------------------------------------------------------------------------- */

static void start(void)
{
    if (running == 0u) {
        captured = 0u;
        table_at = 0u;
        fill = 0u;
        sent = filled;
        overruns = 0u;
        reported_overruns = 0u;
        block = format.block;
        table_step = TABLE_RATE / format.rate_num;
        format.clock_id = draw_id();
        running = 1u;
    }
    streaming = 1u;
}

static void stop_clock(void)
{
    running = 0u;
    format.clock_id = 0u;
}

static uint8_t set_format(const sl_command *c)
{
    const uint32_t rate = (c->rate_hz == 0u) ? format.rate_num : c->rate_hz;
    const uint8_t codec = (c->codec == 0u) ? format.codec : c->codec;
    const uint8_t bits = (codec == SL_CODEC_S24) ? 24u : 16u;
    if (((rate != 4000u) && (rate != 8000u) && (rate != 16000u)) || (codec > SL_CODEC_ADPCM) ||
        ((c->bits != 0u) && (c->bits != bits)) || ((c->site != SL_SITE_UNCHANGED) && (c->site >= SL_SITES))) {
        return SL_NOT_SUPPORTED;
    }
    if ((streaming != 0u) && ((rate != format.rate_num) || (codec != format.codec))) {
        return SL_NOT_NOW;
    }
    if (rate != format.rate_num) {
        stop_clock();
        format.rate_num = rate;
        format.block = (uint16_t)(rate / 100u);
        board_start_adc(rate);
    }
    format.codec = codec;
    format.bits = bits;
    format.site = (c->site == SL_SITE_UNCHANGED) ? format.site : c->site;
    return SL_DONE;
}

static uint8_t set_gain(int16_t gain_cdb)
{
    const int32_t step = gain_cdb / GAIN_STEP_CDB;
    if ((gain_cdb < 0) || (step >= GAIN_STEPS)) {
        return SL_NOT_SUPPORTED;
    }
    format.gain_cdb = (int16_t)(step * GAIN_STEP_CDB);
    return SL_DONE;
}

static void handle_command(const sl_frame *frame)
{
    const uint64_t received_ns = board_ns();
    sl_command command;
    uint8_t code = sl_parse_command(frame, &command);
    if (boot_id == 0u) {
        boot_id = draw_id();
    }
    if (code != SL_DONE) {
        reply(&command, code);
        return;
    }
    if (command.type == SL_TIME_REQUEST) {
        send(SL_TIME, 0u, sample_clock(),
             sl_put_time(payload, sizeof payload, command.t1_ns, received_ns, board_ns()));
        return;
    }
    if (command.type == SL_START) {
        start();
    } else if (command.type == SL_STOP) {
        streaming = 0u;
    } else if (command.type == SL_SET_GAIN) {
        code = set_gain(command.gain_cdb);
    } else if (command.type == SL_SET_FORMAT) {
        code = set_format(&command);
    } else {
        /* HELLO, GET_INFO, PING: nothing to do but reply */
    }
    reply(&command, code);
    if ((code == SL_DONE) && ((command.type == SL_HELLO) || (command.type == SL_GET_INFO))) {
        send_info();
    }
    if ((code == SL_DONE) && (command.type != SL_PING) && (command.type != SL_STOP)) {
        send_format();
    }
}

/* --- Audio ---------------------------------------------------------------------------------------------------------- */

static uint8_t amplify(int16_t *samples, uint32_t count)
{
    const int32_t factor = (int32_t)1 << (format.gain_cdb / GAIN_STEP_CDB);
    uint8_t flags = 0u;
    for (uint32_t i = 0u; i < count; i++) {
        int32_t value = samples[i] * factor;
        if ((value >= 32767) || (value <= -32768)) {
            value = (value > 0) ? 32767 : -32768;
            flags = SL_FLAG_CLIPPED;
        }
        samples[i] = (int16_t)value;
    }
    return flags;
}

static void send_block(buffer *b)
{
    static int32_t wide[MAX_BLOCK];
    const uint16_t count = (uint16_t)block;
    uint8_t flags = amplify(b->samples, count);
    size_t size;
    if (format.codec == SL_CODEC_ADPCM) {
        size = sl_put_audio_adpcm(payload, sizeof payload, b->samples, count, &adpcm);
    } else if (format.codec == SL_CODEC_S24) {
        for (uint32_t i = 0u; i < count; i++) {
            wide[i] = b->samples[i] * 256;
        }
        size = sl_put_audio_s24(payload, sizeof payload, wide, count);
    } else {
        size = sl_put_audio_s16(payload, sizeof payload, b->samples, count);
    }
    flags |= (discontinuity != 0u) ? SL_FLAG_DISCONTINUITY : 0u;
    discontinuity = 0u;
    send(SL_AUDIO, flags, b->first, size);
}

/* Sends one block, so that commands are handled between two. */
static void send_ready(void)
{
    static uint32_t seen_overruns;
    if (sent == filled) {
        return;
    }
    barrier();
    if (seen_overruns != overruns) {
        seen_overruns = overruns;
        discontinuity = 1u;
    }
    if (streaming != 0u) {
        send_block(&buffers[sent % BUFFERS]);
    }
    barrier();
    sent++;
}

int main(void)
{
    uint64_t next_second = 0u;
    sl_decoder_init(&decoder);
    board_init();
    board_start_adc(format.rate_num);
    for (;;) {
        sl_frame frame;
        uint8_t byte;
        while (board_receive(&byte) != 0) {
            if (sl_decoder_push(&decoder, byte, &frame) == SL_GOT_FRAME) {
                handle_command(&frame);
            }
        }
        send_ready();
        if ((streaming != 0u) && (board_ns() >= next_second)) {
            next_second = board_ns() + SECOND_NS;
            send_format();
            send_status();
        }
        (void)board_ns(); /* keeps count of the timer's wraps */
        if (sent == filled) {
            board_sleep();
        }
    }
}
