/* See stetho_link.h. */
#include "stetho_link.h"

#include <string.h>

/* --- Numbers, little-endian on every processor --------------------------------------------------------------------- */

static uint8_t *put_u16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value & 0xFFu);
    at[1] = (uint8_t)(value >> 8);
    return at + 2;
}

static uint8_t *put_u32(uint8_t *at, uint32_t value)
{
    return put_u16(put_u16(at, (uint16_t)(value & 0xFFFFu)), (uint16_t)(value >> 16));
}

static uint8_t *put_u64(uint8_t *at, uint64_t value)
{
    return put_u32(put_u32(at, (uint32_t)(value & 0xFFFFFFFFu)), (uint32_t)(value >> 32));
}

static uint16_t get_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] | ((unsigned)at[1] << 8));
}

static uint32_t get_u32(const uint8_t *at)
{
    return (uint32_t)get_u16(at) | ((uint32_t)get_u16(at + 2) << 16);
}

static uint64_t get_u64(const uint8_t *at)
{
    return (uint64_t)get_u32(at) | ((uint64_t)get_u32(at + 4) << 32);
}

/* Two's complement without implementation-defined casts. */
static int16_t as_s16(uint16_t value)
{
    return (value < 0x8000u) ? (int16_t)value : (int16_t)((int32_t)value - 0x10000);
}

/* --- CRC-32 (IEEE 802.3), four bits at a time: a table of 64 bytes ------------------------------------------------ */

static const uint32_t crc_table[16] = {
    0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u, 0x4DB26158u, 0x5005713Cu,
    0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu, 0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu};

static uint32_t crc_more(uint32_t crc, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        crc = (crc >> 4) ^ crc_table[crc & 0x0Fu];
        crc = (crc >> 4) ^ crc_table[crc & 0x0Fu];
    }
    return crc;
}

uint32_t sl_crc32(const uint8_t *data, size_t size)
{
    return crc_more(0xFFFFFFFFu, data, size) ^ 0xFFFFFFFFu;
}

/* --- COBS, byte by byte, so that a frame needs no second buffer ---------------------------------------------------- */

typedef struct {
    uint8_t *out;
    size_t room;
    size_t at;      /* next byte to write */
    size_t code_at; /* where the length of the open run goes */
    uint8_t code;   /* 1 + bytes in the open run */
    uint8_t failed;
} stuffer;

static void stuff_begin(stuffer *s, uint8_t *out, size_t room)
{
    s->out = out;
    s->room = room;
    s->at = 1u;
    s->code_at = 0u;
    s->code = 1u;
    s->failed = (room == 0u) ? 1u : 0u;
}

static void stuff_close_run(stuffer *s)
{
    s->out[s->code_at] = s->code;
    s->code_at = s->at;
    s->at++;
    s->code = 1u;
}

static void stuff(stuffer *s, const uint8_t *data, size_t size)
{
    for (size_t i = 0; (i < size) && (s->failed == 0u); i++) {
        if (s->code == 0xFFu) {
            stuff_close_run(s);
        }
        if ((s->at > s->room) || ((data[i] != 0u) && (s->at == s->room))) {
            s->failed = 1u;
        } else if (data[i] == 0u) {
            stuff_close_run(s);
        } else {
            s->out[s->at] = data[i];
            s->at++;
            s->code++;
        }
    }
}

/* Returns the size, or 0 if there was no room. */
static size_t stuff_end(stuffer *s)
{
    if ((s->failed != 0u) || (s->at > s->room)) {
        return 0u;
    }
    s->out[s->code_at] = s->code;
    return s->at;
}

size_t sl_cobs_encode(const uint8_t *data, size_t size, uint8_t *out, size_t room)
{
    stuffer s;
    stuff_begin(&s, out, room);
    stuff(&s, data, size);
    return stuff_end(&s);
}

size_t sl_cobs_decode(const uint8_t *data, size_t size, uint8_t *out, size_t room)
{
    size_t from = 0u;
    size_t to = 0u;
    if (size == 0u) {
        return SL_COBS_FAULT;
    }
    while (from < size) {
        const size_t code = data[from];
        if ((code == 0u) || (code > size - from) || (code - 1u > room - to)) {
            return SL_COBS_FAULT;
        }
        from++;
        for (size_t i = 1u; i < code; i++) {
            if (data[from] == 0u) {
                return SL_COBS_FAULT;
            }
            out[to] = data[from];
            to++;
            from++;
        }
        if ((code < 0xFFu) && (from < size)) {
            if (to == room) {
                return SL_COBS_FAULT;
            }
            out[to] = 0u;
            to++;
        }
    }
    return to;
}

/* --- Frames -------------------------------------------------------------------------------------------------------- */

size_t sl_frame_encode(const sl_frame *frame, uint8_t *wire, size_t room)
{
    uint8_t header[SL_HEADER_BYTES];
    uint8_t check[SL_CRC_BYTES];
    uint32_t crc;
    stuffer s;
    size_t size;

    if ((frame->payload_size > SL_MAX_PAYLOAD) || (room < 3u)) {
        return 0u;
    }
    header[0] = frame->version;
    header[1] = frame->type;
    header[2] = frame->flags;
    header[3] = frame->stream;
    (void)put_u64(put_u16(&header[4], frame->seq), frame->sample_index);
    crc = crc_more(0xFFFFFFFFu, header, sizeof header);
    crc = crc_more(crc, frame->payload, frame->payload_size) ^ 0xFFFFFFFFu;
    (void)put_u32(check, crc);

    stuff_begin(&s, &wire[1], room - 2u);
    stuff(&s, header, sizeof header);
    stuff(&s, frame->payload, frame->payload_size);
    stuff(&s, check, sizeof check);
    size = stuff_end(&s);
    if (size == 0u) {
        return 0u;
    }
    wire[0] = 0u;
    wire[size + 1u] = 0u;
    return size + 2u;
}

void sl_decoder_init(sl_decoder *decoder)
{
    (void)memset(decoder, 0, sizeof *decoder);
}

static sl_decoded read_frame(uint8_t *body, size_t size, sl_frame *frame)
{
    if ((size == SL_COBS_FAULT) || (size < SL_HEADER_BYTES + SL_CRC_BYTES) ||
        (sl_crc32(body, size - SL_CRC_BYTES) != get_u32(&body[size - SL_CRC_BYTES]))) {
        return SL_GOT_FAULT;
    }
    frame->version = body[0];
    frame->type = body[1];
    frame->flags = body[2];
    frame->stream = body[3];
    frame->seq = get_u16(&body[4]);
    frame->sample_index = get_u64(&body[6]);
    frame->payload = &body[SL_HEADER_BYTES];
    frame->payload_size = size - SL_HEADER_BYTES - SL_CRC_BYTES;
    return ((frame->version >> 4) == SL_MAJOR) ? SL_GOT_FRAME : SL_GOT_OTHER_VERSION;
}

sl_decoded sl_decoder_push(sl_decoder *decoder, uint8_t byte, sl_frame *frame)
{
    sl_decoded outcome = SL_MORE;

    if (byte != 0u) {
        if (decoder->held < sizeof decoder->buffer) {
            decoder->buffer[decoder->held] = byte;
            decoder->held++;
        } else {
            decoder->oversize = 1u;
        }
        return SL_MORE;
    }
    if (decoder->held > 0u) {
        if (decoder->oversize != 0u) {
            outcome = SL_GOT_FAULT;
        } else {
            const size_t size =
                sl_cobs_decode(decoder->buffer, decoder->held, decoder->buffer, sizeof decoder->buffer);
            outcome = read_frame(decoder->buffer, size, frame);
        }
        if (outcome == SL_GOT_FRAME) {
            decoder->frames++;
        } else if (decoder->synchronised == 0u) {
            outcome = SL_MORE;
        } else {
            decoder->faults++;
        }
    }
    decoder->held = 0u;
    decoder->oversize = 0u;
    decoder->synchronised = 1u;
    return outcome;
}

/* --- Messages ------------------------------------------------------------------------------------------------------ */

static uint8_t *put_text16(uint8_t *at, const char *text)
{
    size_t size = 0u;
    while ((size < 16u) && (text[size] != '\0')) {
        at[size] = (uint8_t)text[size];
        size++;
    }
    (void)memset(&at[size], 0, 16u - size);
    return at + 16;
}

size_t sl_put_info(uint8_t *out, size_t room, const sl_info *info)
{
    const size_t size = 47u + (4u * (size_t)info->rate_count);
    uint8_t *at = out;
    if (room < size) {
        return 0u;
    }
    *at++ = info->proto_min;
    *at++ = info->proto_max;
    *at++ = info->firmware[0];
    *at++ = info->firmware[1];
    *at++ = info->firmware[2];
    *at++ = 0u;
    at = put_u32(put_u32(at, info->capabilities), info->boot_id);
    at = put_text16(put_text16(at, info->serial), info->model);
    *at++ = info->rate_count;
    for (uint8_t i = 0u; i < info->rate_count; i++) {
        at = put_u32(at, info->rates_hz[i]);
    }
    return size;
}

size_t sl_put_format(uint8_t *out, size_t room, const sl_format *format)
{
    uint8_t *at = out;
    if (room < 20u) {
        return 0u;
    }
    at = put_u32(put_u32(put_u32(at, format->clock_id), format->rate_num), format->rate_den);
    *at++ = format->bits;
    *at++ = format->channels;
    *at++ = format->codec;
    *at++ = format->site;
    (void)put_u16(put_u16(at, (uint16_t)format->gain_cdb), format->block);
    return 20u;
}

size_t sl_put_status(uint8_t *out, size_t room, const sl_status *status)
{
    uint8_t *at = out;
    if (room < 24u) {
        return 0u;
    }
    at = put_u32(put_u32(put_u64(at, status->uptime_us), status->dropped_blocks), status->overruns);
    at = put_u16(at, status->battery_mv);
    *at++ = status->battery_percent;
    *at++ = status->contact;
    at = put_u16(at, (uint16_t)status->temperature);
    *at++ = status->state;
    *at = 0u;
    return 24u;
}

size_t sl_put_event(uint8_t *out, size_t room, uint8_t code, int32_t value)
{
    if (room < 8u) {
        return 0u;
    }
    (void)put_u32(out, code);
    (void)put_u32(&out[4], (uint32_t)value);
    return 8u;
}

size_t sl_put_log(uint8_t *out, size_t room, uint8_t level, const char *text)
{
    const size_t length = strlen(text);
    if (room < length + 1u) {
        return 0u;
    }
    out[0] = level;
    (void)memcpy(&out[1], text, length);
    return length + 1u;
}

size_t sl_put_time(uint8_t *out, size_t room, uint64_t t1, uint64_t t2_ns, uint64_t t3_ns)
{
    if (room < 24u) {
        return 0u;
    }
    (void)put_u64(put_u64(put_u64(out, t1), t2_ns), t3_ns);
    return 24u;
}

size_t sl_put_end(uint8_t *out, size_t room, uint64_t total, uint8_t reason)
{
    if (room < 9u) {
        return 0u;
    }
    *put_u64(out, total) = reason;
    return 9u;
}

size_t sl_put_reply(uint8_t *out, size_t room, uint8_t command_type, uint8_t code, uint16_t command_seq)
{
    if (room < 4u) {
        return 0u;
    }
    out[0] = command_type;
    out[1] = code;
    (void)put_u16(&out[2], command_seq);
    return 4u;
}

/* --- Audio --------------------------------------------------------------------------------------------------------- */

static void put_audio_header(uint8_t *out, uint8_t codec, uint16_t count)
{
    out[0] = codec;
    out[1] = 0u;
    (void)put_u16(&out[2], count);
}

size_t sl_put_audio_s16(uint8_t *out, size_t room, const int16_t *samples, uint16_t count)
{
    const size_t size = 4u + (2u * (size_t)count);
    uint8_t *at = &out[4];
    if (room < size) {
        return 0u;
    }
    put_audio_header(out, SL_CODEC_S16, count);
    for (uint16_t i = 0u; i < count; i++) {
        at = put_u16(at, (uint16_t)samples[i]);
    }
    return size;
}

size_t sl_put_audio_s24(uint8_t *out, size_t room, const int32_t *samples, uint16_t count)
{
    const size_t size = 4u + (3u * (size_t)count);
    uint8_t *at = &out[4];
    if (room < size) {
        return 0u;
    }
    put_audio_header(out, SL_CODEC_S24, count);
    for (uint16_t i = 0u; i < count; i++) {
        const uint32_t bits = (uint32_t)samples[i];
        at = put_u16(at, (uint16_t)(bits & 0xFFFFu));
        *at++ = (uint8_t)((bits >> 16) & 0xFFu);
    }
    return size;
}

static const uint16_t adpcm_steps[89] = {
    7u, 8u, 9u, 10u, 11u, 12u, 13u, 14u, 16u, 17u, 19u, 21u, 23u, 25u, 28u, 31u, 34u, 37u, 41u, 45u, 50u, 55u, 60u,
    66u, 73u, 80u, 88u, 97u, 107u, 118u, 130u, 143u, 157u, 173u, 190u, 209u, 230u, 253u, 279u, 307u, 337u, 371u, 408u,
    449u, 494u, 544u, 598u, 658u, 724u, 796u, 876u, 963u, 1060u, 1166u, 1282u, 1411u, 1552u, 1707u, 1878u, 2066u,
    2272u, 2499u, 2749u, 3024u, 3327u, 3660u, 4026u, 4428u, 4871u, 5358u, 5894u, 6484u, 7132u, 7845u, 8630u, 9493u,
    10442u, 11487u, 12635u, 13899u, 15289u, 16818u, 18500u, 20350u, 22385u, 24623u, 27086u, 29794u, 32767u};

static const int8_t adpcm_moves[8] = {-1, -1, -1, -1, 2, 4, 6, 8};

/* The state after a code; encoder and decoder share it. */
static void adpcm_follow(sl_adpcm *state, uint8_t code)
{
    const int32_t step = (int32_t)adpcm_steps[state->index];
    int32_t change = step / 8;
    int32_t value = state->predictor;
    int32_t index = (int32_t)state->index + adpcm_moves[code & 7u];
    change += ((code & 4u) != 0u) ? step : 0;
    change += ((code & 2u) != 0u) ? (step / 2) : 0;
    change += ((code & 1u) != 0u) ? (step / 4) : 0;
    value += ((code & 8u) != 0u) ? -change : change;
    value = (value > 32767) ? 32767 : ((value < -32768) ? -32768 : value);
    index = (index < 0) ? 0 : ((index > 88) ? 88 : index);
    state->predictor = (int16_t)value;
    state->index = (uint8_t)index;
}

static uint8_t adpcm_code(const sl_adpcm *state, int16_t sample)
{
    int32_t step = (int32_t)adpcm_steps[state->index];
    int32_t difference = (int32_t)sample - state->predictor;
    uint8_t code = 0u;
    if (difference < 0) {
        code = 8u;
        difference = -difference;
    }
    if (difference >= step) {
        code |= 4u;
        difference -= step;
    }
    step /= 2;
    if (difference >= step) {
        code |= 2u;
        difference -= step;
    }
    if (difference >= (step / 2)) {
        code |= 1u;
    }
    return code;
}

size_t sl_adpcm_encode(sl_adpcm *state, const int16_t *samples, size_t count, uint8_t *out, size_t room)
{
    const size_t size = 4u + ((count + 1u) / 2u);
    if (room < size) {
        return 0u;
    }
    (void)put_u16(out, (uint16_t)state->predictor);
    out[2] = state->index;
    out[3] = 0u;
    for (size_t i = 0u; i < count; i++) {
        const uint8_t code = adpcm_code(state, samples[i]);
        adpcm_follow(state, code);
        if ((i & 1u) == 0u) {
            out[4u + (i / 2u)] = code;
        } else {
            out[4u + (i / 2u)] |= (uint8_t)(code << 4);
        }
    }
    return size;
}

int sl_adpcm_decode(const uint8_t *block, size_t size, int16_t *samples, size_t count)
{
    sl_adpcm state;
    if ((size < 4u) || (count > 2u * (size - 4u)) || (block[2] > 88u)) {
        return 0;
    }
    state.predictor = as_s16(get_u16(block));
    state.index = block[2];
    for (size_t i = 0u; i < count; i++) {
        const uint8_t pair = block[4u + (i / 2u)];
        adpcm_follow(&state, ((i & 1u) == 0u) ? (uint8_t)(pair & 15u) : (uint8_t)(pair >> 4));
        samples[i] = state.predictor;
    }
    return 1;
}

size_t sl_put_audio_adpcm(uint8_t *out, size_t room, const int16_t *samples, uint16_t count, sl_adpcm *state)
{
    size_t size;
    if (room < 4u) {
        return 0u;
    }
    size = sl_adpcm_encode(state, samples, count, &out[4], room - 4u);
    if (size == 0u) {
        return 0u;
    }
    put_audio_header(out, SL_CODEC_ADPCM, count);
    return size + 4u;
}

void sl_unpack_i2s_24in32(const uint32_t *slots, size_t count, int32_t *samples)
{
    for (size_t i = 0u; i < count; i++) {
        const int32_t value = (int32_t)(slots[i] >> 8); /* 0 .. 2^24 - 1 */
        samples[i] = (value < 0x800000) ? value : (value - 0x1000000);
    }
}

int16_t sl_s24_to_s16(int32_t sample)
{
    /* Add half, then divide rounding down: shifted to positive numbers first. */
    int32_t value = (int32_t)(((uint32_t)(sample + 0x800000) + 128u) / 256u) - 32768;
    return (int16_t)((value > 32767) ? 32767 : value);
}

/* --- Commands ------------------------------------------------------------------------------------------------------ */

static uint8_t parse_payload(const uint8_t *payload, size_t size, sl_command *command)
{
    uint8_t code = SL_DONE;
    size_t least = 0u;
    switch (command->type) {
    case SL_START:
    case SL_STOP:
    case SL_GET_INFO:
    case SL_PING:
        break;
    case SL_HELLO:
        least = 2u;
        if (size >= least) {
            command->version_min = payload[0];
            command->version_max = payload[1];
            if ((payload[0] > SL_MAJOR) || (payload[1] < SL_MAJOR)) {
                code = SL_WRONG_VERSION;
            }
        }
        break;
    case SL_SET_GAIN:
        least = 2u;
        if (size >= least) {
            command->gain_cdb = as_s16(get_u16(payload));
        }
        break;
    case SL_SET_FORMAT:
        least = 8u;
        if (size >= least) {
            command->rate_hz = get_u32(payload);
            command->bits = payload[4];
            command->codec = payload[5];
            command->site = payload[6];
        }
        break;
    case SL_TIME_REQUEST:
        least = 8u;
        if (size >= least) {
            command->t1_ns = get_u64(payload);
        }
        break;
    default:
        code = SL_UNKNOWN_COMMAND;
        break;
    }
    return (size < least) ? (uint8_t)SL_MALFORMED : code;
}

uint8_t sl_parse_command(const sl_frame *frame, sl_command *command)
{
    (void)memset(command, 0, sizeof *command);
    command->type = frame->type;
    command->flags = frame->flags;
    command->seq = frame->seq;
    command->site = SL_SITE_UNCHANGED;
    return parse_payload(frame->payload, frame->payload_size, command);
}
