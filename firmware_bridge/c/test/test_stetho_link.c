/* Unit tests of stetho_link.c for the host, built with sanitizers; see the Makefile.
 *
 *   test_stetho_link            the unit tests
 *   test_stetho_link vectors    the golden frames, "name hex" a line, as ../golden_frames.txt has them
 *   test_stetho_link decode     hex bytes of a wire on stdin -> what the decoder finds in them
 */
#include "stetho_link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

#define CHECK(condition)                                                          \
    do {                                                                          \
        if (!(condition)) {                                                       \
            (void)printf("FAILED %s:%d %s\n", __FILE__, __LINE__, #condition);    \
            failures++;                                                           \
        }                                                                         \
    } while (0)

static uint32_t random_state = 12345u;

static uint32_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

static void test_crc(void)
{
    CHECK(sl_crc32((const uint8_t *)"123456789", 9u) == 0xCBF43926u);
    CHECK(sl_crc32(NULL, 0u) == 0u);
}

static void test_cobs_round_trip_and_room(void)
{
    static uint8_t data[700], packed[800], back[700];
    for (size_t size = 0u; size <= sizeof data; size++) {
        const uint32_t zeros = next_random() % 4u;
        size_t length;
        for (size_t i = 0u; i < size; i++) {
            data[i] = (uint8_t)(((zeros != 0u) && (next_random() % (zeros * 100u) == 0u)) ? 0u : (1u + (next_random() % 255u)));
        }
        length = sl_cobs_encode(data, size, packed, sizeof packed);
        CHECK(length > size && length <= SL_COBS_BOUND(size));
        CHECK(memchr(packed, 0, length) == NULL);
        CHECK(sl_cobs_decode(packed, length, back, sizeof back) == size);
        CHECK(memcmp(data, back, size) == 0);
        /* Room to the byte: exactly enough works, one less does not (ASan watches the end of the heap block). */
        {
            uint8_t *tight = malloc(length);
            CHECK(sl_cobs_encode(data, size, tight, length) == length);
            CHECK(sl_cobs_encode(data, size, tight, length - 1u) == 0u);
            free(tight);
        }
        CHECK(sl_cobs_decode(packed, length, packed, sizeof packed) == size); /* in place */
        CHECK(memcmp(data, packed, size) == 0);
    }
}

static void test_cobs_rejects(void)
{
    uint8_t out[16];
    CHECK(sl_cobs_decode((const uint8_t *)"", 0u, out, sizeof out) == SL_COBS_FAULT);
    CHECK(sl_cobs_decode((const uint8_t *)"\x05\x01", 2u, out, sizeof out) == SL_COBS_FAULT);
    CHECK(sl_cobs_decode((const uint8_t *)"\x03\x01\x00", 3u, out, sizeof out) == SL_COBS_FAULT);
    CHECK(sl_cobs_decode((const uint8_t *)"\x03\x01\x02", 3u, out, 1u) == SL_COBS_FAULT);
}

static sl_frame some_frame(const uint8_t *payload, size_t size)
{
    sl_frame frame = {SL_VERSION, SL_AUDIO, 0u, 0u, 0u, 0u, NULL, 0u};
    frame.seq = (uint16_t)next_random();
    frame.sample_index = ((uint64_t)next_random() << 32) | next_random();
    frame.payload = payload;
    frame.payload_size = size;
    return frame;
}

static void test_frames_survive_noise(void)
{
    static uint8_t payload[SL_MAX_PAYLOAD], wire[SL_WIRE_BOUND(SL_MAX_PAYLOAD)];
    static sl_decoder decoder;
    sl_frame got;
    unsigned good = 0u;
    sl_decoder_init(&decoder);
    for (unsigned round = 0u; round < 300u; round++) {
        const size_t size = next_random() % (SL_MAX_PAYLOAD + 1u);
        sl_frame sent;
        size_t length;
        int seen = 0;
        for (size_t i = 0u; i < size; i++) {
            payload[i] = (uint8_t)((next_random() & 1u) ? 0u : next_random());
        }
        sent = some_frame(payload, size);
        length = sl_frame_encode(&sent, wire, sizeof wire);
        CHECK(length > 0u && length <= SL_WIRE_BOUND(size));
        for (size_t i = 0u; i < length; i++) {
            if (sl_decoder_push(&decoder, wire[i], &got) == SL_GOT_FRAME) {
                seen++;
                CHECK(got.type == sent.type && got.seq == sent.seq && got.sample_index == sent.sample_index);
                CHECK(got.payload_size == size && memcmp(got.payload, payload, size) == 0);
            }
        }
        CHECK(seen == 1);
        good++;
        for (unsigned i = next_random() % 5000u; i > 0u; i--) { /* noise, also longer than any frame */
            (void)sl_decoder_push(&decoder, (uint8_t)((next_random() % 600u == 0u) ? 0u : (1u + (next_random() % 255u))), &got);
        }
    }
    CHECK(decoder.frames == good);
    CHECK(decoder.faults > 100u);
}

static void test_every_flipped_bit_is_detected(void)
{
    uint8_t payload[40], wire[SL_WIRE_BOUND(40u)];
    static sl_decoder decoder;
    sl_frame got, sent;
    size_t length;
    for (size_t i = 0u; i < sizeof payload; i++) {
        payload[i] = (uint8_t)(i % 7u);
    }
    sent = some_frame(payload, sizeof payload);
    length = sl_frame_encode(&sent, wire, sizeof wire);
    for (size_t at = 1u; at + 1u < length; at++) {
        for (unsigned bit = 0u; bit < 8u; bit++) {
            sl_decoder_init(&decoder);
            for (size_t i = 0u; i < length; i++) {
                const uint8_t byte = (uint8_t)(wire[i] ^ ((i == at) ? (1u << bit) : 0u));
                CHECK(sl_decoder_push(&decoder, byte, &got) != SL_GOT_FRAME);
            }
        }
    }
}

static void test_room_and_versions(void)
{
    uint8_t payload[8] = {0}, wire[64], small[8];
    static sl_decoder decoder;
    sl_frame got, frame = some_frame(payload, sizeof payload);
    const size_t length = sl_frame_encode(&frame, wire, sizeof wire);
    sl_decoded last = SL_MORE;
    sl_status status;
    (void)memset(&status, 0, sizeof status);
    for (size_t room = 0u; room < length; room++) {
        CHECK(sl_frame_encode(&frame, wire, room) == 0u);
    }
    frame.payload_size = SL_MAX_PAYLOAD + 1u;
    CHECK(sl_frame_encode(&frame, wire, sizeof wire) == 0u);
    frame.payload_size = 8u;
    frame.version = 0x21u;
    sl_decoder_init(&decoder);
    for (size_t i = 0u; i < sl_frame_encode(&frame, wire, sizeof wire); i++) {
        const sl_decoded now = sl_decoder_push(&decoder, wire[i], &got);
        last = (now != SL_MORE) ? now : last;
    }
    CHECK(last == SL_GOT_OTHER_VERSION);
    CHECK(sl_put_status(small, sizeof small, &status) == 0u);
    CHECK(sl_put_audio_s16(small, 3u, NULL, 0u) == 0u);
    CHECK(sl_put_log(small, sizeof small, 20u, "too long") == 0u);
    CHECK(sl_put_log(small, sizeof small, 20u, "it fits") == 8u);
}

static void test_commands(void)
{
    const uint8_t format[8] = {0x40u, 0x1Fu, 0u, 0u, 24u, 2u, 3u, 0u};
    const uint8_t gain[2] = {0x18u, 0xFCu}; /* -1000 */
    const uint8_t hello[2] = {2u, 3u};
    sl_command command;
    sl_frame frame = some_frame(format, sizeof format);
    frame.type = SL_SET_FORMAT;
    CHECK(sl_parse_command(&frame, &command) == SL_DONE);
    CHECK(command.rate_hz == 8000u && command.bits == 24u && command.codec == 2u && command.site == 3u);
    CHECK(command.seq == frame.seq);
    frame.payload_size = 7u;
    CHECK(sl_parse_command(&frame, &command) == SL_MALFORMED);
    frame.type = SL_SET_GAIN;
    frame.payload = gain;
    frame.payload_size = 2u;
    CHECK(sl_parse_command(&frame, &command) == SL_DONE && command.gain_cdb == -1000);
    frame.type = SL_HELLO;
    frame.payload = hello;
    CHECK(sl_parse_command(&frame, &command) == SL_WRONG_VERSION);
    frame.type = 0xC0u;
    CHECK(sl_parse_command(&frame, &command) == SL_UNKNOWN_COMMAND && command.type == 0xC0u);
}

static void test_adpcm(void)
{
    static int16_t samples[1001], back[1001];
    uint8_t block[4u + 501u];
    sl_adpcm state = {0, 0u};
    double signal = 0.0, noise = 0.0;
    int32_t phase = 0;
    for (unsigned round = 0u; round < 8u; round++) {
        for (size_t i = 0u; i < 1001u; i++) { /* a triangle, then steps from end to end */
            phase = (phase + 400) % 40000;
            samples[i] = (int16_t)((round < 6u) ? ((phase < 20000) ? (phase - 10000) : (30000 - phase))
                                              : ((i % 50u < 25u) ? 32767 : -32768));
        }
        CHECK(sl_adpcm_encode(&state, samples, 1001u, block, sizeof block) == sizeof block);
        CHECK(sl_adpcm_decode(block, sizeof block, back, 1001u) == 1);
        CHECK(back[1000] == state.predictor); /* decoder and encoder agree */
        for (size_t i = 0u; (i < 1001u) && (round > 0u) && (round < 6u); i++) {
            signal += (double)samples[i] * samples[i];
            noise += ((double)samples[i] - back[i]) * ((double)samples[i] - back[i]);
        }
    }
    CHECK(signal > 1000.0 * noise); /* 30 dB */
    CHECK(sl_adpcm_encode(&state, samples, 1001u, block, sizeof block - 1u) == 0u);
    CHECK(sl_adpcm_decode(block, sizeof block - 1u, back, 1001u) == 0);
    block[2] = 89u;
    CHECK(sl_adpcm_decode(block, sizeof block, back, 1001u) == 0);
}

static void test_i2s(void)
{
    const uint32_t slots[4] = {0x7FFFFF00u, 0x80000000u, 0xFFFFFF00u, 0x00000100u};
    int32_t samples[4];
    sl_unpack_i2s_24in32(slots, 4u, samples);
    CHECK(samples[0] == 8388607 && samples[1] == -8388608 && samples[2] == -1 && samples[3] == 1);
    CHECK(sl_s24_to_s16(8388607) == 32767 && sl_s24_to_s16(-8388608) == -32768);
    CHECK(sl_s24_to_s16(-1) == 0 && sl_s24_to_s16(256) == 1 && sl_s24_to_s16(-256) == -1 && sl_s24_to_s16(127) == 0);
}

static void show(const char *name, uint8_t type, uint16_t seq, uint64_t index, const uint8_t *payload, size_t size)
{
    static uint8_t wire[SL_WIRE_BOUND(SL_MAX_PAYLOAD)];
    sl_frame frame = {SL_VERSION, 0u, 0u, 0u, 0u, 0u, NULL, 0u};
    size_t length;
    frame.type = type;
    frame.seq = seq;
    frame.sample_index = index;
    frame.payload = payload;
    frame.payload_size = size;
    length = sl_frame_encode(&frame, wire, sizeof wire);
    (void)printf("%s ", name);
    for (size_t i = 0u; i < length; i++) {
        (void)printf("%02x", wire[i]);
    }
    (void)printf("\n");
}

static void show_vectors(void)
{
    static uint8_t p[SL_MAX_PAYLOAD];
    const uint32_t rates[3] = {4000u, 8000u, 16000u};
    const sl_info info = {1u, 1u, {1u, 2u, 3u}, 0x1FFu, 0xDEADBEEFu, "SN-00042", "reference", 3u, rates};
    const sl_format format = {7u, 16000u, 1u, 16u, 1u, SL_CODEC_S16, 4u, -250, 160u};
    const sl_status status = {123456789012u, 3u, 5u, 3700u, 81u, 1u, 3150, SL_STREAMING};
    int16_t s16[300];
    int32_t s24[5] = {0, 1, -1, 8388607, -8388608};
    sl_adpcm state = {0, 0u};
    for (int i = 0; i < 300; i++) {
        s16[i] = (int16_t)(((i * i * 37) % 20011) - 10000);
    }
    show("info", SL_INFO, 0u, 0u, p, sl_put_info(p, sizeof p, &info));
    show("format", SL_FORMAT, 1u, 0u, p, sl_put_format(p, sizeof p, &format));
    show("audio_s16", SL_AUDIO, 2u, 160u, p, sl_put_audio_s16(p, sizeof p, s16, 300u));
    show("audio_s24", SL_AUDIO, 65535u, 0x0123456789ABCDEFu, p, sl_put_audio_s24(p, sizeof p, s24, 5u));
    (void)sl_put_audio_adpcm(p, sizeof p, s16, 160u, &state);
    show("audio_adpcm", SL_AUDIO, 4u, 320u, p, sl_put_audio_adpcm(p, sizeof p, &s16[160], 139u, &state));
    show("status", SL_STATUS, 5u, 480u, p, sl_put_status(p, sizeof p, &status));
    show("event", SL_EVENT, 6u, 481u, p, sl_put_event(p, sizeof p, SL_BUTTON_DOWN, -2));
    show("log", SL_LOG, 7u, 482u, p, sl_put_log(p, sizeof p, 20u, "hello"));
    show("time", SL_TIME, 8u, 483u, p, sl_put_time(p, sizeof p, 1000u, 0x100000002u, 0x100000003u));
    show("end", SL_END, 9u, 484u, p, sl_put_end(p, sizeof p, 484u, 0u));
    show("ack", SL_ACK, 10u, 0u, p, sl_put_reply(p, sizeof p, SL_START, SL_DONE, 513u));
    show("nack", SL_NACK, 11u, 0u, p, sl_put_reply(p, sizeof p, SL_SET_FORMAT, SL_NOT_NOW, 514u));
}

static void decode_stdin(void)
{
    static sl_decoder decoder;
    sl_frame frame;
    unsigned byte;
    sl_decoder_init(&decoder);
    while (scanf("%2x", &byte) == 1) {
        const sl_decoded outcome = sl_decoder_push(&decoder, (uint8_t)byte, &frame);
        if (outcome == SL_GOT_FRAME) {
            sl_command command;
            (void)printf("frame %u %u %u %u %llu ", frame.type, frame.flags, frame.stream, frame.seq,
                         (unsigned long long)frame.sample_index);
            for (size_t i = 0u; i < frame.payload_size; i++) {
                (void)printf("%02x", frame.payload[i]);
            }
            if ((frame.type & 0x80u) != 0u) {
                const unsigned code = sl_parse_command(&frame, &command);
                (void)printf(" command %u %u %u %d %lu %u %u %u %llu", code, command.version_min, command.version_max,
                             command.gain_cdb, (unsigned long)command.rate_hz, command.bits, command.codec,
                             command.site, (unsigned long long)command.t1_ns);
            }
            (void)printf("\n");
        } else if (outcome != SL_MORE) {
            (void)printf("%s\n", (outcome == SL_GOT_FAULT) ? "fault" : "version");
        }
    }
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        if (strcmp(argv[1], "vectors") == 0) {
            show_vectors();
        } else {
            decode_stdin();
        }
        return 0;
    }
    test_crc();
    test_cobs_round_trip_and_room();
    test_cobs_rejects();
    test_frames_survive_noise();
    test_every_flipped_bit_is_detected();
    test_room_and_versions();
    test_commands();
    test_adpcm();
    test_i2s();
    (void)printf("%s\n", (failures == 0) ? "all passed" : "FAILED");
    return (failures == 0) ? 0 : 1;
}
