# Names of distribution packages, for scripts/bootstrap.sh. Only Debian 12 is verified; the other lists are what the
# distributions are known to call the same programs.
# shellcheck shell=bash disable=SC2034

packages_apt=(
  ca-certificates git make procps iproute2 util-linux fdisk
  python3 python3-venv python3-libvirt python3-libnbd python3-xxhash
  libvirt-daemon libvirt-clients qemu-system-x86 qemu-utils
  nbdkit libnbd-bin ovmf mtools dosfstools e2fsprogs openssh-client
)
# Only for tests: they compile a library that shifts the clock.
compiler_apt=(gcc libc6-dev)
compiler_dnf=(gcc glibc-devel)
compiler_zypper=(gcc glibc-devel)
# Only for benchmarks: what the product is compared with.
bench_apt=(virtnbdbackup)
# Unpacked below build/lab, never installed: their maintainer scripts would change how this machine boots or runs.
parts_apt=(busybox-static qemu-guest-agent grub-common grub-pc-bin grub-efi-amd64-bin openssh-server libwrap0)
kernel_apt=linux-image-cloud-amd64

packages_dnf=(
  ca-certificates git make procps-ng iproute util-linux
  python3 python3-libvirt python3-libnbd python3-xxhash
  libvirt-daemon-driver-qemu libvirt-daemon-driver-network libvirt-client qemu-system-x86-core qemu-img
  nbdkit libnbd edk2-ovmf mtools dosfstools e2fsprogs openssh-clients
)

packages_zypper=(
  ca-certificates git make procps iproute2 util-linux
  python3 python3-libvirt-python python3-libnbd python3-xxhash
  libvirt-daemon libvirt-daemon-driver-qemu libvirt-client qemu-x86 qemu-tools
  nbdkit libnbd qemu-ovmf-x86_64 mtools dosfstools e2fsprogs openssh-clients
)
