#!/bin/sh
# Set up this machine as a node of the demo: sh provision.sh UNIT...
# Installs Arke from this script's checkout, installs the shared key and starts the named units.
set -eu
umask 022

checkout=$(cd "$(dirname "$0")/.." && pwd)
key=$checkout/vagrant/.secrets/id_rsa

if [ ! -r "$key" ]; then
    echo "provision.sh: $key is missing: run \`vagrant up\`, which creates it" >&2
    exit 2
fi

export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q -y --no-install-recommends install gcc libc6-dev python3-dev python3-venv

python3 -m venv /opt/arke
# The lock contains the hash of every package, also of those that build Arke.
/opt/arke/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement "$checkout/requirements.lock"
/opt/arke/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation "$checkout"
install -D -m 0644 "$checkout/demo-httpserver/httpserver.py" /opt/arke/demo-httpserver/httpserver.py

# Only the relay's user may read the key. The other units use DynamicUser.
if ! getent passwd arke >/dev/null; then
    useradd --system --no-create-home --shell /usr/sbin/nologin arke
fi
install -d -m 0755 /etc/arke
install -m 0600 -o arke -g arke "$key" /etc/arke/id_rsa

for unit in "$@"; do
    install -m 0644 "$checkout/vagrant/units/$unit.service" /etc/systemd/system/
done
systemctl daemon-reload
systemctl enable "$@"
# Not `enable --now`: a second `vagrant provision` must restart the units with the new code.
systemctl restart "$@"
