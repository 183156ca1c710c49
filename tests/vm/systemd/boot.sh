# shellcheck shell=bash
# The VM that systemd runs, for the lines of `kernels` whose root is `systemd`. `run` takes this in, and calls boot_systemd.

# Boots it, and runs the tests of scopes and of cgroups there, or those that were named.
boot_systemd() {
  local kernel=$1 release=$2 place=$work/$1 root=$work/$1/root
  retry "$here/systemd/disk" bookworm "$cache/disk"
  mkdir -p "$root/bin" "$root/tests/deps"
  cp /bin/busybox "$root/bin/busybox"
  ln -s busybox "$root/bin/sh"
  cp "$here/systemd/init" "$root/init"
  cp "$here/systemd/tests" "$here/systemd/tests.service" "$here/binaries.sh" "$root/tests"
  cp -r "$work/base/tests/examples" "$work/base/tests/stockade" "$root/tests"
  local names=("${chosen[@]}")
  [ ${#names[@]} -gt 0 ] || names=(systemd cgroups)
  printf '%s\n' "${names[@]}" >"$root/tests/runs"
  cp "$work"/base/tests/deps/* "$root/tests/deps"
  archive "$root" >"$place/base.cpio"
  echo "$kernel: booting it with systemd: $cache/logs/$kernel.log"
  vm "$kernel" "$release" '' -drive "file=$cache/disk,format=raw,if=virtio,snapshot=on"
}
