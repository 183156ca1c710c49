# shellcheck shell=bash
# What a VM boots from. `run` takes this in.

# The lines of a list, without its comments.
list() {
  sed '/^#/d' "$here/$1"
}

# An archive for the initramfs of what lies in a directory, which all belongs to root.
archive() {
  (cd "$1" && find . -mindepth 1 -print0 | cpio --null --create --format=newc --owner=0:0 --quiet)
}

# The file system that is the same on all kernels, as an archive.
base() {
  local root=$work/base
  mkdir -p "$root"/{dev,proc,sys,run,tmp,root,home/ordinary,var/{lib,tmp},etc,opt,mnt,srv,usr/{bin,sbin,lib,lib64}}
  chmod 1777 "$root/tmp" "$root/var/tmp"
  chmod 700 "$root/root"
  for folder in bin sbin lib lib64; do
    ln -s "usr/$folder" "$root/$folder"
  done
  # shellcheck disable=SC2046
  dpkg -L $(list programs) | sort -u | grep -E '^/(usr/)?s?bin/' | while read -r file; do
    if [ -f "$file" ] || [ -h "$file" ]; then echo "${file#/}"; fi
  done >"$work/files"
  tar -C / -c -T "$work/files" | tar -C "$root" -xp --keep-directory-symlink
  ln -sf mawk "$root/usr/bin/awk"
  cp /bin/busybox "$root/usr/bin/busybox"
  cp "$here/init" "$root/init"
  binaries "$root/tests"
  cp "$here/binaries.sh" "$root/tests"
  libraries "$root"

  printf '%s\n' 'root:x:0:0:root:/root:/bin/bash' 'daemon:x:1:1::/:/usr/sbin/nologin' 'bin:x:2:2::/bin:/usr/sbin/nologin' \
    'nobody:x:65534:65534::/:/usr/sbin/nologin' 'ordinary:x:1000:1000::/home/ordinary:/bin/bash' >"$root/etc/passwd"
  printf '%s\n' 'root:x:0:' 'daemon:x:1:' 'bin:x:2:' 'tty:x:5:' 'disk:x:6:' 'nogroup:x:65534:' 'ordinary:x:1000:' >"$root/etc/group"
  (umask 077 && echo 'root:*:20000:0:99999:7:::' >"$root/etc/shadow")
  echo 'ordinary:100000:65536' | tee "$root/etc/subuid" >"$root/etc/subgid"
  echo '127.0.0.1 localhost' >"$root/etc/hosts"
  echo 'vm' >"$root/etc/hostname"
  echo 'a VM for tests' >"$root/etc/motd"
  archive "$root" >"$work/base.cpio"
}

# The test binaries, the command and the examples, without what a debugger needs, as cargo builds them.
binaries() {
  local place=$1
  mkdir -p "$place/deps" "$place/examples"
  echo 'building the tests'
  (cd "$here/../.." && cargo test -q --all-features --no-run --message-format=json) >"$work/cargo.json"
  python3 - "$work/cargo.json" <<'PYTHON' >"$work/binaries"
import json, sys
for line in open(sys.argv[1]):
    message = json.loads(line)
    if message.get("executable"):
        target = message["target"]
        kind = target["kind"][0]
        if kind == "example":
            print("examples", target["name"], message["executable"])
        elif kind == "bin" and not message["profile"]["test"]:
            print(".", target["name"], message["executable"])
        # `rooms`, `wording` and `config` read the sources, which a VM does not have, and `guide` runs cargo. What `stored` and
        # `fingerprint` test does not depend on the kernel. `isolated` tests the harness of Rust, in sandboxes of a profile.
        elif message["profile"]["test"] and kind != "bin" and target["name"] not in (
            "rooms", "wording", "config", "guide", "stored", "fingerprint", "isolated"
        ):
            print("deps", "lib" if "lib" in kind else target["name"], message["executable"])
PYTHON
  while read -r folder name file; do
    strip --strip-debug -o "$place/$folder/$name" "$file"
  done <"$work/binaries"
  [ -e "$place/deps/suite" ] || fail 'cargo built no test'
  # What is run on its own: each area of the suite, and each other binary. Not `hosts`, which simulates them by changing the root
  # of the machine that it runs on, and not `runtimes`, which a VM does not have.
  { "$place/deps/suite" --list | sed -n 's/^as_[a-z]*::\([^:]*\)::.*/\1/p' | sort -u | grep -vx -e hosts -e runtimes &&
    ls "$place/deps" | grep -vx suite; } >"$work/runs"
  for name in "${chosen[@]}"; do
    grep -qxF -e "$name" "$work/runs" || fail "there are no tests $name, but these: $(tr '\n' ' ' <"$work/runs")"
  done
  if [ ${#chosen[@]} -eq 0 ]; then cp "$work/runs" "$place/runs"; else printf '%s\n' "${chosen[@]}" >"$place/runs"; fi
}

# The shared libraries of all programs, where they look for them.
libraries() {
  local root=$1
  # It fails for scripts and for what is linked statically.
  { find "$root/usr" "$root/tests" -type f -perm -100 -exec ldd {} + 2>/dev/null || true; } |
    grep -oE '/[^ ]+\.so[^ ]*' | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
}

# What a kernel has beside that, in a directory: its modules, and which tests it leaves out.
extra() {
  local kernel=$1 release=$2 root=$3 tree=$cache/$2/root version number=100 file
  mkdir -p "$root/modules" "$root/tests/skip"
  version=$(ls "$tree/lib/modules")
  # With what each of them needs, in the order in which they are loaded.
  for module in $(list modules); do
    /sbin/modprobe -d "$tree" -S "$version" --show-depends "$module" 2>/dev/null || echo "$kernel has no module $module" >&2
  done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
    case $file in
      *.xz) xz -dc "$file" >"$root/modules/$number-$(basename "$file" .xz)" ;;
      *) cp "$file" "$root/modules/$number-$(basename "$file")" ;;
    esac
    number=$((number + 1))
  done
  list left-out | while read -r where binary test _; do
    if [ "$where" = '*' ] || [ "$where" = "$kernel" ]; then
      # Those of a user begin with it.
      case $test in as_*) test="$test::" ;; *) test="::$test" ;; esac
      echo "--skip $test" >>"$root/tests/skip/$binary"
    fi
  done
}
