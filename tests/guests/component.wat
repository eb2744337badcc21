;; The component that tests drive: a command for WASI preview 2 (wasi:cli/run), written by hand. Its arguments are
;; instructions, as in driver.c, carried out in order:
;;
;;   print TEXT    a line on stdout            error TEXT   a line on stderr
;;   args          every argument, one a line  environ      every variable, NAME=value, one a line
;;   copy          stdin to stdout             sleep S      seconds
;;   cat PATH      a file's content            put PATH TEXT   makes or overwrites a file
;;                 (both in the first directory that it is given)
;;   grow N        by N pages, or "no memory"
;;   trap          recurse                     spin
;;   exit N        ends with that code         fail         ends as one that went wrong
;;   return        with what run returns for one that went wrong
;;   part TEXT     on stdout, without newline, and not flushed
;;   flood N       N times 4 KiB on stdout
(component
  (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $error-type))
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable-type))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (alias outer 1 $error-type (type $e))
    (export "error" (type $error (eq $e)))
    (type $failure (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $failure)))
    (export "input-stream" (type $input (sub resource)))
    (export "output-stream" (type $output (sub resource)))
    (export "[method]input-stream.blocking-read"
      (func (param "self" (borrow $input)) (param "len" u64) (result (result (list u8) (error $stream-error)))))
    (export "[method]output-stream.check-write"
      (func (param "self" (borrow $output)) (result (result u64 (error $stream-error)))))
    (export "[method]output-stream.write"
      (func (param "self" (borrow $output)) (param "contents" (list u8)) (result (result (error $stream-error)))))
    (export "[method]output-stream.blocking-write-and-flush"
      (func (param "self" (borrow $output)) (param "contents" (list u8)) (result (result (error $stream-error)))))))
  (alias export $streams "input-stream" (type $input-type))
  (alias export $streams "output-stream" (type $output-type))
  (import "wasi:cli/environment@0.2.0" (instance $environment
    (export "get-environment" (func (result (list (tuple string string)))))
    (export "get-arguments" (func (result (list string))))))
  (import "wasi:cli/exit@0.2.0" (instance $exit
    (export "exit" (func (param "status" (result))))
    (export "exit-with-code" (func (param "status-code" u8)))))
  (import "wasi:cli/stdin@0.2.0" (instance $stdin
    (alias outer 1 $input-type (type $i))
    (export "input-stream" (type $input (eq $i)))
    (export "get-stdin" (func (result (own $input))))))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $output-type (type $o))
    (export "output-stream" (type $output (eq $o)))
    (export "get-stdout" (func (result (own $output))))))
  (import "wasi:cli/stderr@0.2.0" (instance $stderr
    (alias outer 1 $output-type (type $o))
    (export "output-stream" (type $output (eq $o)))
    (export "get-stderr" (func (result (own $output))))))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable-type (type $p))
    (export "pollable" (type $pollable (eq $p)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
  (import "wasi:filesystem/types@0.2.0" (instance $files
    (export "descriptor" (type $descriptor (sub resource)))
    (type $codes (enum "access" "would-block" "already" "bad-descriptor" "busy" "deadlock" "quota" "exist"
      "file-too-large" "illegal-byte-sequence" "in-progress" "interrupted" "invalid" "io" "is-directory" "loop"
      "too-many-links" "message-size" "name-too-long" "no-device" "no-entry" "no-lock" "insufficient-memory"
      "insufficient-space" "not-directory" "not-empty" "not-recoverable" "unsupported" "no-tty" "no-such-device"
      "overflow" "not-permitted" "pipe" "read-only" "invalid-seek" "text-file-busy" "cross-device"))
    (export "error-code" (type $code (eq $codes)))
    (type $follow (flags "symlink-follow"))
    (export "path-flags" (type $path-flags (eq $follow)))
    (type $how (flags "create" "directory" "exclusive" "truncate"))
    (export "open-flags" (type $open-flags (eq $how)))
    (type $rights (flags "read" "write" "file-integrity-sync" "data-integrity-sync" "requested-write-sync"
      "mutate-directory"))
    (export "descriptor-flags" (type $descriptor-flags (eq $rights)))
    (export "[method]descriptor.open-at" (func (param "self" (borrow $descriptor)) (param "path-flags" $path-flags)
      (param "path" string) (param "open-flags" $open-flags) (param "flags" $descriptor-flags)
      (result (result (own $descriptor) (error $code)))))
    (export "[method]descriptor.read" (func (param "self" (borrow $descriptor)) (param "length" u64)
      (param "offset" u64) (result (result (tuple (list u8) bool) (error $code)))))
    (export "[method]descriptor.write" (func (param "self" (borrow $descriptor)) (param "buffer" (list u8))
      (param "offset" u64) (result (result u64 (error $code)))))))
  (alias export $files "descriptor" (type $descriptor-type))
  (import "wasi:filesystem/preopens@0.2.0" (instance $preopens
    (alias outer 1 $descriptor-type (type $d))
    (export "descriptor" (type $descriptor (eq $d)))
    (export "get-directories" (func (result (list (tuple (own $descriptor) string)))))))

  ;; The memory, and where what a host returns is put.
  (core module $memory
    (memory (export "memory") 4)
    (global $free (mut i32) (i32.const 65536))
    (func (export "realloc") (param $old i32) (param $size i32) (param $align i32) (param $wanted i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.set $free (i32.add (local.get $at) (local.get $wanted)))
      (if (i32.gt_u (global.get $free) (i32.const 262144)) (then (unreachable)))
      (local.get $at))
    (func (export "forget") (global.set $free (i32.const 131072)))) ;; what was read: the arguments lie below
  (core instance $m (instantiate $memory))
  (alias core export $m "memory" (core memory $mem))
  (alias core export $m "realloc" (core func $realloc))

  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $read (canon lower (func $streams "[method]input-stream.blocking-read")
    (memory $mem) (realloc $realloc)))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush") (memory $mem)))
  (core func $check-write (canon lower (func $streams "[method]output-stream.check-write") (memory $mem)))
  (core func $write-only (canon lower (func $streams "[method]output-stream.write") (memory $mem)))
  (core func $get-environment (canon lower (func $environment "get-environment") (memory $mem) (realloc $realloc)))
  (core func $get-arguments (canon lower (func $environment "get-arguments") (memory $mem) (realloc $realloc)))
  (core func $end (canon lower (func $exit "exit")))
  (core func $end-with-code (canon lower (func $exit "exit-with-code")))
  (core func $get-stdin (canon lower (func $stdin "get-stdin")))
  (core func $get-stdout (canon lower (func $stdout "get-stdout")))
  (core func $get-stderr (canon lower (func $stderr "get-stderr")))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core func $directories (canon lower (func $preopens "get-directories") (memory $mem) (realloc $realloc)))
  (core func $open (canon lower (func $files "[method]descriptor.open-at") (memory $mem)))
  (core func $pread (canon lower (func $files "[method]descriptor.read") (memory $mem) (realloc $realloc)))
  (core func $pwrite (canon lower (func $files "[method]descriptor.write") (memory $mem)))
  (core func $drop-file (canon resource.drop $descriptor-type))

  (core module $main
    (import "wasi" "memory" (memory 4))
    (import "wasi" "forget" (func $forget))
    (import "wasi" "block" (func $block (param i32)))
    (import "wasi" "read" (func $read (param i32 i64 i32)))
    (import "wasi" "write" (func $write (param i32 i32 i32 i32)))
    (import "wasi" "check-write" (func $check-write (param i32 i32)))
    (import "wasi" "write-only" (func $write-only (param i32 i32 i32 i32)))
    (import "wasi" "get-environment" (func $get-environment (param i32)))
    (import "wasi" "get-arguments" (func $get-arguments (param i32)))
    (import "wasi" "end" (func $end (param i32)))
    (import "wasi" "end-with-code" (func $end-with-code (param i32)))
    (import "wasi" "get-stdin" (func $get-stdin (result i32)))
    (import "wasi" "get-stdout" (func $get-stdout (result i32)))
    (import "wasi" "get-stderr" (func $get-stderr (result i32)))
    (import "wasi" "subscribe" (func $subscribe (param i64) (result i32)))
    (import "wasi" "directories" (func $directories (param i32)))
    (import "wasi" "open" (func $open (param i32 i32 i32 i32 i32 i32 i32)))
    (import "wasi" "pread" (func $pread (param i32 i64 i64 i32)))
    (import "wasi" "pwrite" (func $pwrite (param i32 i32 i32 i64 i32)))
    (import "wasi" "drop-file" (func $drop-file (param i32)))
    ;; 16: the answer of a call; 64: digits; 128: texts; 256: the words
    (data (i32.const 128) "\0a=no memoryerror ")
    (data (i32.const 256)
      "print   error   args    environ copy    sleep   cat     put     grow    trap    recurse spin    "
      "exit    fail    return  part    flood   ")
    (global $stdout (mut i32) (i32.const 0))
    (global $stderr (mut i32) (i32.const 0))
    (global $words (mut i32) (i32.const 0))
    (global $last (mut i32) (i32.const 0))

    ;; which instruction a word is: its place in the table above, or -1
    (func $which (param $word i32) (param $size i32) (result i32)
      (local $entry i32) (local $i i32) (local $c i32)
      (if (i32.gt_u (local.get $size) (i32.const 8)) (then (return (i32.const -1))))
      (loop $entries
        (local.set $i (i32.const 0))
        (block $differs
          (loop $letters
            (local.set $c (i32.const 32))
            (if (i32.lt_u (local.get $i) (local.get $size))
              (then (local.set $c (i32.load8_u (i32.add (local.get $word) (local.get $i))))))
            (br_if $differs (i32.ne (local.get $c) (i32.load8_u offset=256
              (i32.add (i32.mul (local.get $entry) (i32.const 8)) (local.get $i)))))
            (br_if $letters (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 8))))
          (return (local.get $entry)))
        (br_if $entries (i32.lt_u (local.tee $entry (i32.add (local.get $entry) (i32.const 1))) (i32.const 17))))
      (i32.const -1))

    (func $say (param $stream i32) (param $text i32) (param $size i32)
      (local $part i32)
      (loop $parts ;; a host takes no more than 4096 bytes at once
        (if (local.get $size) (then
          (local.set $part (select (i32.const 4096) (local.get $size) (i32.gt_u (local.get $size) (i32.const 4096))))
          (call $write (local.get $stream) (local.get $text) (local.get $part) (i32.const 16))
          (if (i32.load8_u (i32.const 16)) (then (call $end (i32.const 1))))
          (local.set $text (i32.add (local.get $text) (local.get $part)))
          (local.set $size (i32.sub (local.get $size) (local.get $part)))
          (br $parts)))))
    (func $newline (param $stream i32) (call $say (local.get $stream) (i32.const 128) (i32.const 1)))
    (func $line (param $stream i32) (param $entry i32)
      (call $say (local.get $stream) (i32.load (local.get $entry)) (i32.load offset=4 (local.get $entry)))
      (call $newline (local.get $stream)))

    (func $number (param $entry i32) (result i32)
      (local $i i32) (local $n i32)
      (block $done
        (loop $digits
          (br_if $done (i32.ge_u (local.get $i) (i32.load offset=4 (local.get $entry))))
          (local.set $n (i32.add (i32.mul (local.get $n) (i32.const 10)) (i32.sub
            (i32.load8_u (i32.add (i32.load (local.get $entry)) (local.get $i))) (i32.const 48))))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $digits)))
      (local.get $n))

    ;; "error N", N below 100
    (func $failed (param $code i32)
      (call $say (global.get $stdout) (i32.const 139) (i32.const 6))
      (i32.store8 (i32.const 64) (i32.add (i32.const 48) (i32.div_u (local.get $code) (i32.const 10))))
      (i32.store8 (i32.const 65) (i32.add (i32.const 48) (i32.rem_u (local.get $code) (i32.const 10))))
      (call $say (global.get $stdout) (i32.const 64) (i32.const 2))
      (call $newline (global.get $stdout)))

    (func $environ
      (local $entry i32) (local $left i32)
      (call $get-environment (i32.const 16))
      (local.set $entry (i32.load (i32.const 16)))
      (local.set $left (i32.load (i32.const 20)))
      (loop $entries
        (if (local.get $left) (then
          (call $say (global.get $stdout) (i32.load (local.get $entry)) (i32.load offset=4 (local.get $entry)))
          (call $say (global.get $stdout) (i32.const 129) (i32.const 1))
          (call $line (global.get $stdout) (i32.add (local.get $entry) (i32.const 8)))
          (local.set $entry (i32.add (local.get $entry) (i32.const 16)))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br $entries)))))

    (func $copy
      (local $stdin i32)
      (local.set $stdin (call $get-stdin))
      (block $done
        (loop $parts
          (call $forget)
          (call $read (local.get $stdin) (i64.const 4096) (i32.const 16))
          (br_if $done (i32.load8_u (i32.const 16)))
          (call $say (global.get $stdout) (i32.load (i32.const 20)) (i32.load (i32.const 24)))
          (br $parts))))

    ;; a file in the first directory; -1 and a line that says why where it cannot be opened
    (func $file (param $path i32) (param $how i32) (param $rights i32) (result i32)
      (call $directories (i32.const 16))
      (if (i32.eqz (i32.load (i32.const 20))) (then (call $failed (i32.const 99)) (return (i32.const -1))))
      (call $open (i32.load (i32.load (i32.const 16))) (i32.const 1)
        (i32.load (local.get $path)) (i32.load offset=4 (local.get $path))
        (local.get $how) (local.get $rights) (i32.const 16))
      (if (i32.load8_u (i32.const 16)) (then (call $failed (i32.load8_u (i32.const 20))) (return (i32.const -1))))
      (i32.load (i32.const 20)))
    (func $cat (param $path i32)
      (local $file i32)
      (if (i32.eq (local.tee $file (call $file (local.get $path) (i32.const 0) (i32.const 1))) (i32.const -1))
        (then (return)))
      (call $pread (local.get $file) (i64.const 4096) (i64.const 0) (i32.const 16))
      (if (i32.load8_u (i32.const 16)) (then (call $failed (i32.load8_u (i32.const 20))))
        (else (call $say (global.get $stdout) (i32.load (i32.const 20)) (i32.load (i32.const 24)))))
      (call $drop-file (local.get $file)))
    (func $put (param $path i32) (param $text i32)
      (local $file i32)
      (if (i32.eq (local.tee $file (call $file (local.get $path) (i32.const 9) (i32.const 2))) (i32.const -1))
        (then (return)))
      (call $pwrite (local.get $file) (i32.load (local.get $text)) (i32.load offset=4 (local.get $text)) (i64.const 0)
        (i32.const 16))
      (if (i32.load8_u (i32.const 16)) (then (call $failed (i32.load8_u (i32.const 24)))))
      (call $drop-file (local.get $file)))

    (func $recurse (param $depth i32) (result i32)
      (i32.add (call $recurse (i32.add (local.get $depth) (i32.const 1))) (local.get $depth)))
    (func $trap unreachable)

    ;; carries out one instruction; how many words it took, -1 where run is to say that it went wrong
    (func $do (param $word i32) (result i32)
      (local $next i32)
      (local.set $next (i32.add (local.get $word) (i32.const 8)))
      (block $return (block $fail (block $flood (block $part (block $exit (block $spin (block $recurse (block $trap (block $grow
      (block $put (block $cat (block $sleep (block $copy (block $environ (block $args (block $error (block $print
        (br_table $print $error $args $environ $copy $sleep $cat $put $grow $trap $recurse $spin $exit $fail
          $return $part $flood $fail (call $which (i32.load (local.get $word)) (i32.load offset=4 (local.get $word)))))
        ;; print
        (call $line (global.get $stdout) (local.get $next)) (return (i32.const 2)))
        ;; error
        (call $line (global.get $stderr) (local.get $next)) (return (i32.const 2)))
        ;; args
        (local.set $next (global.get $words))
        (loop $words
          (call $line (global.get $stdout) (local.get $next))
          (local.set $next (i32.add (local.get $next) (i32.const 8)))
          (br_if $words (i32.lt_u (local.get $next) (global.get $last))))
        (return (i32.const 1)))
        ;; environ
        (call $environ) (return (i32.const 1)))
        ;; copy
        (call $copy) (return (i32.const 1)))
        ;; sleep
        (call $block (call $subscribe (i64.mul (i64.extend_i32_u (call $number (local.get $next)))
          (i64.const 1000000000))))
        (return (i32.const 2)))
        ;; cat
        (call $cat (local.get $next)) (return (i32.const 2)))
        ;; put
        (call $put (local.get $next) (i32.add (local.get $next) (i32.const 8))) (return (i32.const 3)))
        ;; grow
        (if (i32.eq (memory.grow (call $number (local.get $next))) (i32.const -1)) (then
          (call $say (global.get $stdout) (i32.const 130) (i32.const 9)) (call $newline (global.get $stdout))))
        (return (i32.const 2)))
        ;; trap
        (call $trap))
        ;; recurse
        (return (call $recurse (i32.const 1))))
        ;; spin
        (loop $for-ever (br $for-ever)))
        ;; exit
        (call $end-with-code (call $number (local.get $next))))
        ;; part
        (loop $room ;; until the reader has taken some of what is in the pipe
          (call $check-write (global.get $stdout) (i32.const 16))
          (br_if $room (i64.eqz (i64.load (i32.const 24)))))
        (call $write-only (global.get $stdout) (i32.load (local.get $next)) (i32.load offset=4 (local.get $next))
          (i32.const 16))
        (return (i32.const 2)))
        ;; flood
        (local.set $word (call $number (local.get $next)))
        (loop $more
          (if (local.get $word) (then
            (call $say (global.get $stdout) (i32.const 0) (i32.const 4096))
            (local.set $word (i32.sub (local.get $word) (i32.const 1)))
            (br $more))))
        (return (i32.const 2)))
        ;; fail, and what is no instruction
        (call $end (i32.const 1)))
      ;; return
      (i32.const -1))

    (func (export "run") (result i32)
      (local $word i32) (local $taken i32)
      (global.set $stdout (call $get-stdout))
      (global.set $stderr (call $get-stderr))
      (call $get-arguments (i32.const 16))
      (global.set $words (i32.load (i32.const 16)))
      (global.set $last (i32.add (global.get $words) (i32.mul (i32.load (i32.const 20)) (i32.const 8))))
      (local.set $word (i32.add (global.get $words) (i32.const 8)))
      (block $done
        (loop $instructions
          (br_if $done (i32.ge_u (local.get $word) (global.get $last)))
          (local.set $taken (call $do (local.get $word)))
          (if (i32.eq (local.get $taken) (i32.const -1)) (then (return (i32.const 1))))
          (local.set $word (i32.add (local.get $word) (i32.mul (local.get $taken) (i32.const 8))))
          (br $instructions)))
      (i32.const 0)))
  (core instance $program (instantiate $main (with "wasi" (instance
    (export "memory" (memory $mem))
    (export "forget" (func $m "forget"))
    (export "block" (func $block))
    (export "read" (func $read))
    (export "write" (func $write))
    (export "check-write" (func $check-write))
    (export "write-only" (func $write-only))
    (export "get-environment" (func $get-environment))
    (export "get-arguments" (func $get-arguments))
    (export "end" (func $end))
    (export "end-with-code" (func $end-with-code))
    (export "get-stdin" (func $get-stdin))
    (export "get-stdout" (func $get-stdout))
    (export "get-stderr" (func $get-stderr))
    (export "subscribe" (func $subscribe))
    (export "directories" (func $directories))
    (export "open" (func $open))
    (export "pread" (func $pread))
    (export "pwrite" (func $pwrite))
    (export "drop-file" (func $drop-file))))))
  (func $run (result (result)) (canon lift (core func $program "run")))
  (instance (export "wasi:cli/run@0.2.0") (export "run" (func $run))))
