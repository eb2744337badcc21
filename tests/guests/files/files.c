/* A component that does with files what its arguments say, a function of wasi:filesystem or wasi:io each, and prints
   what each of them has answered.

   An argument is words: where to keep the handle that is answered (a letter; . for nowhere), the function, the handle
   that it is a method of (a letter, or the digit of a preopen), and its arguments. In a word, %41 is the byte of this
   number, x*300 is 300 of these letters, and - is nothing. It is made of this file and files.wit (tests.guests). */
#include <stddef.h>
#include <stdint.h>

typedef int32_t i32;
typedef int64_t i64;
typedef uint64_t u64;

#define IMPORT(module, name) __attribute__((import_module(module "@0.2.0"), import_name(name))) extern
#define D(name) IMPORT("wasi:filesystem/types", "[method]descriptor." name)
#define IN(name) IMPORT("wasi:io/streams", "[method]input-stream." name)
#define OUT(name) IMPORT("wasi:io/streams", "[method]output-stream." name)

IMPORT("wasi:cli/environment", "get-arguments") void get_arguments(void *);
IMPORT("wasi:cli/stdout", "get-stdout") i32 get_stdout(void);
IMPORT("wasi:clocks/wall-clock", "now") void wall_now(void *);
IMPORT("wasi:filesystem/preopens", "get-directories") void get_directories(void *);
IMPORT("wasi:filesystem/types", "filesystem-error-code") void error_code(i32, void *);
IMPORT("wasi:filesystem/types", "[method]directory-entry-stream.read-directory-entry") void read_entry(i32, void *);
IMPORT("wasi:filesystem/types", "[resource-drop]descriptor") void drop_descriptor(i32);
IMPORT("wasi:filesystem/types", "[resource-drop]directory-entry-stream") void drop_entries(i32);
IMPORT("wasi:io/error", "[resource-drop]error") void drop_error(i32);
IMPORT("wasi:io/poll", "[resource-drop]pollable") void drop_pollable(i32);
IMPORT("wasi:io/poll", "[method]pollable.block") void block(i32);
IMPORT("wasi:io/poll", "[method]pollable.ready") i32 ready(i32);
IMPORT("wasi:io/streams", "[resource-drop]input-stream") void drop_input(i32);
IMPORT("wasi:io/streams", "[resource-drop]output-stream") void drop_output(i32);
D("read-via-stream") void read_via_stream(i32, i64, void *);
D("write-via-stream") void write_via_stream(i32, i64, void *);
D("append-via-stream") void append_via_stream(i32, void *);
D("advise") void advise(i32, i64, i64, i32, void *);
D("sync-data") void sync_data(i32, void *);
D("sync") void sync_all(i32, void *);
D("get-flags") void get_flags(i32, void *);
D("get-type") void get_type(i32, void *);
D("set-size") void set_size(i32, i64, void *);
D("set-times") void set_times(i32, i32, i64, i32, i32, i64, i32, void *);
D("read") void read_at(i32, i64, i64, void *);
D("write") void write_at(i32, const char *, i32, i64, void *);
D("read-directory") void read_directory(i32, void *);
D("create-directory-at") void create_directory_at(i32, const char *, i32, void *);
D("stat") void stat_of(i32, void *);
D("stat-at") void stat_at(i32, i32, const char *, i32, void *);
D("set-times-at") void set_times_at(i32, i32, const char *, i32, i32, i64, i32, i32, i64, i32, void *);
D("link-at") void link_at(i32, i32, const char *, i32, i32, const char *, i32, void *);
D("open-at") void open_at(i32, i32, const char *, i32, i32, i32, void *);
D("readlink-at") void readlink_at(i32, const char *, i32, void *);
D("remove-directory-at") void remove_directory_at(i32, const char *, i32, void *);
D("rename-at") void rename_at(i32, const char *, i32, i32, const char *, i32, void *);
D("symlink-at") void symlink_at(i32, const char *, i32, const char *, i32, void *);
D("unlink-file-at") void unlink_file_at(i32, const char *, i32, void *);
D("is-same-object") i32 is_same_object(i32, i32);
D("metadata-hash") void metadata_hash(i32, void *);
D("metadata-hash-at") void metadata_hash_at(i32, i32, const char *, i32, void *);
IN("read") void in_read(i32, i64, void *);
IN("blocking-read") void in_blocking_read(i32, i64, void *);
IN("skip") void in_skip(i32, i64, void *);
IN("blocking-skip") void in_blocking_skip(i32, i64, void *);
IN("subscribe") i32 in_subscribe(i32);
OUT("check-write") void check_write(i32, void *);
OUT("write") void out_write(i32, const char *, i32, void *);
OUT("blocking-write-and-flush") void write_and_flush(i32, const char *, i32, void *);
OUT("flush") void flush(i32, void *);
OUT("blocking-flush") void blocking_flush(i32, void *);
OUT("subscribe") i32 out_subscribe(i32);
OUT("write-zeroes") void write_zeroes(i32, i64, void *);
OUT("blocking-write-zeroes-and-flush") void zeroes_and_flush(i32, i64, void *);
OUT("splice") void splice(i32, i32, i64, void *);
OUT("blocking-splice") void blocking_splice(i32, i32, i64, void *);

static const char *const CODES[] = {
    "access", "would-block", "already", "bad-descriptor", "busy", "deadlock", "quota", "exist", "file-too-large",
    "illegal-byte-sequence", "in-progress", "interrupted", "invalid", "io", "is-directory", "loop", "too-many-links",
    "message-size", "name-too-long", "no-device", "no-entry", "no-lock", "insufficient-memory", "insufficient-space",
    "not-directory", "not-empty", "not-recoverable", "unsupported", "no-tty", "no-such-device", "overflow",
    "not-permitted", "pipe", "read-only", "invalid-seek", "text-file-busy", "cross-device"};
static const char *const TYPES[] = {"unknown", "block-device", "character-device", "directory",
                                    "fifo",    "symbolic-link", "regular-file",    "socket"};

static unsigned char memory[4 << 20] __attribute__((aligned(16)));
static size_t used;
static char output[1 << 16];
static i32 filled;
static struct { i32 handle; char kind; u64 hash[2]; } kept[128];
static i32 ret[32] __attribute__((aligned(8)));

__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t size, size_t align, size_t wanted) {
  used = (used + align - 1) & ~(align - 1);
  if (old || used + wanted > sizeof memory) __builtin_trap();
  void *found = memory + used;
  used += wanted;
  return found;
}

typedef struct {
  const char *data;
  i32 size;
} text;

static int is(text a, const char *word) {
  i32 i = 0;
  for (; i < a.size && word[i]; i++)
    if (a.data[i] != word[i]) return 0;
  return i == a.size && !word[i];
}
static void put(char byte) {
  if (filled < (i32)sizeof output) output[filled++] = byte;
}
static void say(const char *word) {
  while (*word) put(*word++);
}
static void say_number(u64 value) {
  char digits[20];
  i32 at = 20;
  do digits[--at] = '0' + value % 10;
  while (value /= 10);
  while (at < 20) put(digits[at++]);
}
static i32 digit(char c) { return c <= '9' ? c - '0' : (c | 32) - 'a' + 10; }
/* Bytes, of those that are many the first ones. */
static void say_bytes(const char *data, i32 size) {
  for (i32 i = 0; i < size && i < 40; i++) {
    unsigned char c = data[i];
    if (c > ' ' && c < 127 && c != '%') put(c);
    else put('%'), put("0123456789abcdef"[c >> 4]), put("0123456789abcdef"[c & 15]);
  }
  if (size > 40) say("...");
}
static u64 number(text a) {
  u64 n = 0;
  for (i32 i = 0; i < a.size && a.data[i] >= '0' && a.data[i] <= '9'; i++) n = n * 10 + a.data[i] - '0';
  return n;
}
static text decoded(text a) {
  static char room[2][1 << 18];
  static i32 which;
  char *found = room[which = !which];
  i32 size = 0;
  if (is(a, "-")) return (text){found, 0};
  if (a.size > 2 && a.data[1] == '*') {
    u64 count = number((text){a.data + 2, a.size - 2});
    while ((u64)size < count && size < (1 << 18)) found[size++] = a.data[0];
    return (text){found, size};
  }
  for (i32 i = 0; i < a.size; i++)
    if (a.data[i] == '%') found[size++] = digit(a.data[i + 1]) << 4 | digit(a.data[i + 2]), i += 2;
    else found[size++] = a.data[i];
  return (text){found, size};
}
/* The bits of flags, whose letters these are. */
static i32 bits(text a, const char *letters) {
  i32 found = 0;
  for (i32 i = 0; i < a.size; i++)
    for (i32 bit = 0; letters[bit]; bit++)
      if (a.data[i] == letters[bit]) found |= 1 << bit;
  return found;
}

static text words[8];
#define FOLLOW(at) bits(words[at], "L")
#define HANDLE(at) kept[(int)words[at].data[0] & 127].handle
#define PATH(at) text path = decoded(words[at])
#define P path.data, path.size

/* Whether a function without a result has gone well; says what it was, if not. `at`: where its error lies. */
static int good(i32 at) {
  if (!(ret[0] & 0xff)) return say("ok"), 1;
  return say(CODES[((unsigned char *)ret)[at]]), 0;
}
static void keep(char kind, i32 handle) {
  i32 place = words[0].data[0] & 127;
  kept[place].handle = handle;
  kept[place].kind = kind;
}
static void kept_if_good(char kind) {
  if (good(4)) keep(kind, ret[1]);
}
/* The same for a stream, whose errors lie at `at`, in words of 32 bits. */
static int streamed(i32 at) {
  if (!(ret[0] & 0xff)) return say("ok"), 1;
  if (ret[at] & 0xff) return say("closed"), 0;
  i32 error = ret[at + 1], code[1];
  error_code(error, code);
  say("failed ");
  say(code[0] & 0xff ? CODES[((unsigned char *)code)[1]] : "without a code");
  drop_error(error);
  return 0;
}
static void streamed_bytes(void) {
  if (!streamed(1)) return;
  put(' ');
  say_number(ret[2]);
  put(' ');
  say_bytes((const char *)ret[1], ret[2]);
}
static void streamed_number(void) {
  if (!streamed(2)) return;
  put(' ');
  say_number(*(u64 *)(ret + 2));
}

/* A time: - for no change, now, or seconds and nanoseconds with a dot between them. */
typedef struct {
  i32 kind, nanoseconds;
  i64 seconds;
} moment;
static moment time_of(text a) {
  if (is(a, "-")) return (moment){0, 0, 0};
  if (is(a, "now")) return (moment){1, 0, 0};
  i32 dot = 0;
  while (dot < a.size && a.data[dot] != '.') dot++;
  return (moment){2, number((text){a.data + dot + 1, a.size - dot - 1}), number(a)};
}
#define M(m) m.kind, m.seconds, m.nanoseconds
static void say_time(const i32 *option) {
  i32 now[4] __attribute__((aligned(8)));
  wall_now(now);
  if (!(option[0] & 0xff)) return say(" none");
  u64 seconds = *(u64 *)(option + 2), clock = *(u64 *)now;
  if (seconds + 3600 > clock && seconds < clock + 3600) return say(" now");
  put(' ');
  say_number(seconds);
  put('.');
  say_number((uint32_t)option[4]);
}
static void say_stat(int times) {
  if (!good(8)) return;
  const i32 *stat = ret + 2;
  if (times) return say_time(stat + 6), say_time(stat + 12);
  put(' ');
  say(TYPES[stat[0] & 0xff]);
  put(' ');
  say_number(*(u64 *)(stat + 2));
  put(' ');
  say_number(*(u64 *)(stat + 4));
  if (!(stat[6] & stat[12] & stat[18] & 1)) say(" and lacks a time");
}
static void keep_hash(void) {
  if (!good(8)) return;
  i32 place = words[0].data[0] & 127;
  for (i32 i = 0; i < 2; i++) kept[place].hash[i] = ((u64 *)(ret + 2))[i];
}

/* All that is in a directory, sorted. */
static void say_entries(i32 entries) {
  static struct { text name; i32 type; } found[256];
  i32 count = 0;
  for (;;) {
    read_entry(entries, ret);
    if (ret[0] & 0xff) return (void)good(4);
    if (!(ret[1] & 0xff) || count == 256) break;
    text name = {(const char *)ret[3], ret[4]};
    i32 at = count++;
    for (; at > 0; at--) {
      text before = found[at - 1].name;
      i32 i = 0;
      while (i < name.size && i < before.size && name.data[i] == before.data[i]) i++;
      if (i == before.size || (i < name.size && (unsigned char)before.data[i] < (unsigned char)name.data[i])) break;
      found[at] = found[at - 1];
    }
    found[at].name = name;
    found[at].type = ret[2] & 0xff;
  }
  say("ok");
  for (i32 i = 0; i < count; i++) {
    put(' ');
    say_bytes(found[i].name.data, found[i].name.size);
    put('=');
    say(TYPES[found[i].type]);
  }
}

static void drop(i32 place) {
  i32 handle = kept[place].handle;
  switch (kept[place].kind) {
    case 'd': drop_descriptor(handle); break;
    case 'e': drop_entries(handle); break;
    case 'i': drop_input(handle); break;
    case 'o': drop_output(handle); break;
    case 'p': drop_pollable(handle); break;
    default: __builtin_trap();
  }
  kept[place].kind = 0;
  say("ok");
}

static int descriptor(i32 self) {
  text op = words[1];
  if (is(op, "advise")) return advise(self, number(words[3]), number(words[4]), number(words[5]), ret), good(1), 1;
  if (is(op, "sync-data")) return sync_data(self, ret), good(1), 1;
  if (is(op, "sync")) return sync_all(self, ret), good(1), 1;
  if (is(op, "set-size")) return set_size(self, number(words[3]), ret), good(1), 1;
  if (is(op, "read-via-stream")) return read_via_stream(self, number(words[3]), ret), kept_if_good('i'), 1;
  if (is(op, "write-via-stream")) return write_via_stream(self, number(words[3]), ret), kept_if_good('o'), 1;
  if (is(op, "append-via-stream")) return append_via_stream(self, ret), kept_if_good('o'), 1;
  if (is(op, "read-directory")) return read_directory(self, ret), kept_if_good('e'), 1;
  if (is(op, "stat")) return stat_of(self, ret), say_stat(0), 1;
  if (is(op, "times")) return stat_of(self, ret), say_stat(1), 1;
  if (is(op, "metadata-hash")) return metadata_hash(self, ret), keep_hash(), 1;
  if (is(op, "is-same-object")) return say(is_same_object(self, HANDLE(3)) ? "yes" : "no"), 1;
  if (is(op, "set-times")) {
    moment a = time_of(words[3]), m = time_of(words[4]);
    return set_times(self, M(a), M(m), ret), good(1), 1;
  }
  if (is(op, "get-type")) {
    get_type(self, ret);
    if (good(1)) put(' '), say(TYPES[((unsigned char *)ret)[1]]);
    return 1;
  }
  if (is(op, "get-flags")) {
    get_flags(self, ret);
    if (!good(1)) return 1;
    put(' ');
    for (i32 bit = 0; bit < 6; bit++)
      if (((unsigned char *)ret)[1] >> bit & 1) put("rwfdsm"[bit]);
    return 1;
  }
  if (is(op, "read")) {
    read_at(self, number(words[3]), number(words[4]), ret);
    if (!good(4)) return 1;
    say(ret[3] & 0xff ? " end " : " ");
    say_number(ret[2]);
    put(' ');
    say_bytes((const char *)ret[1], ret[2]);
    return 1;
  }
  if (is(op, "write")) {
    text data = decoded(words[3]);
    write_at(self, data.data, data.size, number(words[4]), ret);
    if (good(8)) put(' '), say_number(*(u64 *)(ret + 2));
    return 1;
  }
  return 0;
}

static int at_path(i32 self) {
  text op = words[1];
  int flagged = is(op, "stat-at") || is(op, "times-at") || is(op, "set-times-at") || is(op, "link-at") ||
                is(op, "open-at") || is(op, "metadata-hash-at");
  i32 follow = flagged ? FOLLOW(3) : 0;
  PATH(flagged ? 4 : 3);
  if (is(op, "create-directory-at")) return create_directory_at(self, P, ret), good(1), 1;
  if (is(op, "remove-directory-at")) return remove_directory_at(self, P, ret), good(1), 1;
  if (is(op, "unlink-file-at")) return unlink_file_at(self, P, ret), good(1), 1;
  if (is(op, "stat-at")) return stat_at(self, follow, P, ret), say_stat(0), 1;
  if (is(op, "times-at")) return stat_at(self, follow, P, ret), say_stat(1), 1;
  if (is(op, "metadata-hash-at")) return metadata_hash_at(self, follow, P, ret), keep_hash(), 1;
  if (is(op, "readlink-at")) {
    readlink_at(self, P, ret);
    if (good(4)) put(' '), say_bytes((const char *)ret[1], ret[2]);
    return 1;
  }
  if (is(op, "set-times-at")) {
    moment a = time_of(words[5]), m = time_of(words[6]);
    return set_times_at(self, follow, P, M(a), M(m), ret), good(1), 1;
  }
  if (is(op, "open-at"))
    return open_at(self, follow, P, bits(words[5], "cdet"), bits(words[6], "rwfdsm"), ret), kept_if_good('d'), 1;
  if (is(op, "symlink-at")) {
    text other = decoded(words[4]);
    return symlink_at(self, P, other.data, other.size, ret), good(1), 1;
  }
  if (is(op, "rename-at")) {
    text other = decoded(words[5]);
    return rename_at(self, P, HANDLE(4), other.data, other.size, ret), good(1), 1;
  }
  if (is(op, "link-at")) {
    text other = decoded(words[6]);
    return link_at(self, follow, P, HANDLE(5), other.data, other.size, ret), good(1), 1;
  }
  return 0;
}

static int stream(i32 self) {
  text op = words[1];
  u64 size = number(words[3]);
  if (is(op, "in-read")) return in_read(self, size, ret), streamed_bytes(), 1;
  if (is(op, "in-blocking-read")) return in_blocking_read(self, size, ret), streamed_bytes(), 1;
  if (is(op, "in-skip")) return in_skip(self, size, ret), streamed_number(), 1;
  if (is(op, "in-blocking-skip")) return in_blocking_skip(self, size, ret), streamed_number(), 1;
  if (is(op, "in-subscribe")) return keep('p', in_subscribe(self)), say("ok"), 1;
  if (is(op, "out-subscribe")) return keep('p', out_subscribe(self)), say("ok"), 1;
  if (is(op, "ready")) return say(ready(self) ? "yes" : "no"), 1;
  if (is(op, "block")) return block(self), say("ok"), 1;
  if (is(op, "check-write")) {
    check_write(self, ret);
    if (streamed(2)) say(*(u64 *)(ret + 2) >= 4096 ? " much" : " little");
    return 1;
  }
  if (is(op, "out-write")) {
    text data = decoded(words[3]);
    return out_write(self, data.data, data.size, ret), streamed(1), 1;
  }
  if (is(op, "write-and-flush")) {
    text data = decoded(words[3]);
    return write_and_flush(self, data.data, data.size, ret), streamed(1), 1;
  }
  if (is(op, "write-zeroes")) return write_zeroes(self, size, ret), streamed(1), 1;
  if (is(op, "zeroes-and-flush")) return zeroes_and_flush(self, size, ret), streamed(1), 1;
  if (is(op, "flush")) return flush(self, ret), streamed(1), 1;
  if (is(op, "blocking-flush")) return blocking_flush(self, ret), streamed(1), 1;
  if (is(op, "splice")) return splice(self, HANDLE(3), number(words[4]), ret), streamed_number(), 1;
  if (is(op, "blocking-splice")) return blocking_splice(self, HANDLE(3), number(words[4]), ret), streamed_number(), 1;
  return 0;
}

static void run_line(text line) {
  i32 count = 0, at = 0;
  for (i32 i = 0; i < 8; i++) words[i] = (text){"-", 1};
  for (i32 i = 0; i <= line.size && count < 8; i++)
    if (i == line.size || line.data[i] == ' ') {
      if (i > at) words[count++] = (text){line.data + at, i - at};
      at = i + 1;
    }
  i32 place = words[2].data[0] & 127, self = kept[place].handle;
  if (is(words[1], "same-hash")) {
    u64 *a = kept[place].hash, *b = kept[words[3].data[0] & 127].hash;
    return say(a[0] == b[0] && a[1] == b[1] ? "yes" : "no");
  }
  if (!kept[place].kind) return say("no handle");
  if (is(words[1], "drop")) return drop(place);
  if (is(words[1], "entries")) return say_entries(self);
  if (is(words[1], "entry")) {
    read_entry(self, ret);
    if (good(4) && !(ret[1] & 0xff)) say(" none");
    return;
  }
  if (!descriptor(self) && !at_path(self) && !stream(self)) say("no such function");
}

__attribute__((export_name("wasi:cli/run@0.2.0#run"))) i32 run(void) {
  i32 out = get_stdout();
  get_directories(ret);
  const i32 *directories = (const i32 *)ret[0];
  for (i32 i = 0; i < ret[1] && i < 10; i++) kept['0' + i].handle = directories[3 * i], kept['0' + i].kind = 'd';
  get_arguments(ret);
  const text *lines = (const text *)ret[0];
  i32 count = ret[1];
  size_t before = used;
  for (i32 i = 1; i < count; i++) {
    run_line(lines[i]);
    put('\n');
    for (i32 sent = 0; sent < filled; sent += 4096) {
      write_and_flush(out, output + sent, filled - sent > 4096 ? 4096 : filled - sent, ret);
      if (ret[0] & 0xff) return 1;
    }
    filled = 0;
    used = before;
  }
  drop_output(out);
  return 0;
}
