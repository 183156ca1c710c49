# shellcheck shell=bash
# The VM that systemd runs, for the lines of `kernels` whose root is `systemd`. `run` takes this in, and calls boot_systemd.

# A small Debian with systemd, a bus, and an ordinary user with a manager, as a disk. It is made once.
systemd_disk() {
  local release=$1 disk=$2 tree=$work/tree from
  [ -e "$disk" ] && return
  [ "$(id -u)" = 0 ] || fail 'a Debian with systemd takes root to be made (debootstrap)'
  if ! command -v debootstrap >/dev/null; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends debootstrap
  fi
  from=$(mirror)
  [ -n "$from" ] || fail 'no mirror of Debian is in the sources of apt: name one in STOCKADE_VM_MIRROR'
  echo "making a Debian $release with systemd"
  debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,udev,kmod,procps \
    "$release" "$tree" "$from" >"$cache/logs/debootstrap"
  echo 'ordinary:x:1000:1000::/home/ordinary:/bin/bash' >>"$tree/etc/passwd"
  echo 'ordinary:!:1::::::' >>"$tree/etc/shadow"
  echo 'ordinary:x:1000:' >>"$tree/etc/group"
  mkdir -p "$tree/home/ordinary"
  chown 1000:1000 "$tree/home/ordinary"
  # What `loginctl enable-linger ordinary` makes.
  mkdir -p "$tree/var/lib/systemd/linger"
  touch "$tree/var/lib/systemd/linger/ordinary"
  echo vm >"$tree/etc/hostname"
  rm -rf "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/*
  truncate -s 2G "$disk.new"
  /sbin/mke2fs -q -t ext4 -d "$tree" "$disk.new"
  rm -rf "$tree"
  mv "$disk.new" "$disk"
}

# Boots it, and runs the tests of scopes there, or those that were named.
boot_systemd() {
  local kernel=$1 release=$2 start=$SECONDS root=$work/systemd name
  local console=$cache/logs/$kernel.console report=$cache/logs/$kernel.log
  systemd_disk "$release" "$cache/$kernel/disk"
  rm -rf "$root" "$console" "$report"
  mkdir -p "$root/bin" "$root/tests/deps"
  cp /bin/busybox "$root/bin/busybox"
  ln -s busybox "$root/bin/sh"
  cp "$here/systemd/init" "$root/init"
  cp "$here/systemd/tests" "$here/systemd/tests.service" "$root/tests"
  cp -r "$work/base/tests/examples" "$root/tests"
  local binaries=("${chosen[@]}")
  [ ${#binaries[@]} -gt 0 ] || binaries=(systemd)
  for name in "${binaries[@]}"; do
    cp "$work/base/tests/deps/$name" "$root/tests/deps"
  done
  { archive "$root" && extra "$kernel"; } >"$work/initramfs"
  echo "booting $kernel with systemd of Debian's $release: $report"
  timeout "$boot_limit" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 -display none -no-reboot -nodefaults \
    -drive "file=$cache/$kernel/disk,format=raw,if=virtio,snapshot=on" -serial "file:$console" -serial "file:$report" \
    -kernel "$cache/$kernel/vmlinuz" -initrd "$work/initramfs" \
    -append "console=ttyS0 panic=-1 rdinit=/init time_limit=$binary_limit filter=$filter" </dev/null ||
    echo "$kernel: qemu ended with $?, see $console"
  echo "$kernel took $((SECONDS - start)) s"
}
