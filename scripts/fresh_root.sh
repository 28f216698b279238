# Sourced by fresh.sh: makes the bare Debian 12 root and hands the caller's settings in.

# "URL suite components" of every bookworm archive that this machine's apt uses, main archive first.
apt_archives() {
  # shellcheck disable=SC2016 # $(...) is apt's own format language
  apt-get indextargets --format '$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT)' |
    awk '$1 == "Packages" && $3 ~ /^bookworm(-|$)/ && $4 == "main" { print $2, $3, $4 }' | sort -u -k2,2
}

make_root() {
  local root=$1 archives
  archives=$(apt_archives)
  [ -z "$mirror" ] || archives="$mirror bookworm main"
  [ -n "$mirror" ] || mirror=$(awk '$2 == "bookworm" { print $1; exit }' <<<"$archives")
  [ -n "$mirror" ] || fail "apt on this machine knows no bookworm archive; name one with --mirror URL"
  if [ -n "$base" ] && [ -f "$base" ]; then
    tar -xpf "$base" -C "$root"
  else
    debootstrap --variant=minbase --include=git,ca-certificates bookworm "$root" "$mirror" >"$parent/debootstrap.log" 2>&1 ||
      fail "debootstrap failed, see $parent/debootstrap.log"
    [ -z "$base" ] || tar -cpf "$base" -C "$root" .
  fi
  sed 's/^/deb /' <<<"$archives" >"$root/etc/apt/sources.list"
}

# Copy a file of the caller to the same place in the root, if there is one.
copy_in() {
  local file target
  for file in "$@"; do
    target=$root${file/#$HOME\//\/root\/}
    [ ! -f "$file" ] || { mkdir -p "$(dirname "$target")" && cp -L "$file" "$target"; }
  done
}

hand_in_settings() {
  local root=$1 name value bundle=""
  mkdir -p "$root/etc/fresh"
  : >"$root/etc/fresh/directories"
  copy_in /etc/resolv.conf /etc/hosts /etc/apt/auth.conf /etc/apt/auth.conf.d/* \
    /etc/pip.conf ~/.config/pip/pip.conf ~/.pip/pip.conf ~/.netrc ~/.npmrc /etc/npmrc /usr/etc/npmrc ~/.config/go/env
  apt-config dump | grep -E '^Acquire::[^ ]+ "[^"]*";$' |
    grep -iE 'proxy|cainfo|verify|retries|timeout|check-(date|valid)' >"$root/etc/apt/apt.conf.d/99caller" || true
  for value in "${SSL_CERT_FILE:-}" "${CURL_CA_BUNDLE:-}" "${REQUESTS_CA_BUNDLE:-}" "${PIP_CERT:-}" /etc/ssl/certs/ca-certificates.crt; do
    [ -f "$value" ] && { bundle=$value; break; }
  done
  {
    echo HOME=/root
    echo PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    echo LANG=C.UTF-8
    while IFS='=' read -r name; do
      value=${!name}
      case $name in
        PIP_CERT) ;; # below
        PIP_FIND_LINKS)
          [ ! -d "$value" ] || { realpath "$value" >>"$root/etc/fresh/directories"; echo "$name=$value"; }
          [[ $value != *://* ]] || echo "$name=$value" ;;
        *) echo "$name=$value" ;;
      esac
    done < <(compgen -e | grep -E '^(https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY|PIP_[A-Z_]+|(NPM_CONFIG|npm_config)_[A-Za-z_]+|GO(PROXY|SUMDB|NOSUMDB|PRIVATE|NOPROXY|INSECURE|FLAGS|TOOLCHAIN))$')
    if [ -n "$bundle" ]; then
      cp -L "$bundle" "$root/etc/fresh/ca.pem"
      for name in SSL_CERT_FILE CURL_CA_BUNDLE REQUESTS_CA_BUNDLE GIT_SSL_CAINFO PIP_CERT NODE_EXTRA_CA_CERTS; do
        echo "$name=/etc/fresh/ca.pem"
      done
    fi
  } >"$root/etc/fresh/environment"
  [ -z "$bundle" ] || echo 'Acquire::https::CAInfo "/etc/fresh/ca.pem";' >>"$root/etc/apt/apt.conf.d/99caller"
}
