#!/usr/bin/env bash
# Sets up a Pillarbox for a black-box bench that wants a server.json: $BENCH_ROOT/pillarbox/{start.sh,server.json}.
#   BENCH_ROOT=/scratch benches/peer.sh        prints the path of server.json
# Five accounts u1..u5@bench.test with passwords pw-u1..pw-u5, plain LOGIN allowed on loopback, per-address limits off.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${BENCH_ROOT:?set BENCH_ROOT to a scratch folder}"
PB=${PORT_BASE:-16000}; NAME=${NAME:-pillarbox}
PILLARBOX=${PILLARBOX:-$PWD/target/release/pillarbox}
R=$BENCH_ROOT/$NAME; mkdir -p "$R/data"
cat > "$R/pillarbox.toml" <<X
data = "$R/data"
allow-root = true
auth-in-clear-on-loopback = true

[net]
sessions-max = 4000
sessions-per-address-max = 4000

[listen]
smtp = ["127.0.0.1:$((PB+25))"]
submission = ["127.0.0.1:$((PB+587))"]
submissions = ["127.0.0.1:$((PB+465))"]
imap = ["127.0.0.1:$((PB+143))"]
imaps = ["127.0.0.1:$((PB+993))"]
pop3 = ["127.0.0.1:$((PB+110))"]
pop3s = ["127.0.0.1:$((PB+995))"]
X
cat > "$R/start.sh" <<X
#!/bin/bash
set -e
for i in 1 2 3 4 5; do
  printf 'pw-u%s' \$i | $PILLARBOX account add u\$i@bench.test --password-stdin --data $R/data >/dev/null 2>&1 || true
done
exec $PILLARBOX serve --config $R/pillarbox.toml
X
chmod +x "$R/start.sh"
python3 - "$R" "$NAME" "$PB" <<'P'
import json, sys
R, name, pb = sys.argv[1], sys.argv[2], int(sys.argv[3])
json.dump(dict(name=name, host="127.0.0.1",
    ports=dict(smtp=pb+25, submission=pb+587, submissions=pb+465, imap=pb+143, imaps=pb+993, pop3=pb+110, pop3s=pb+995),
    users=[dict(login=f"u{i}@bench.test", address=f"u{i}@bench.test", password=f"pw-u{i}") for i in range(1, 6)],
    start=[R + "/start.sh"], data_dirs=[R + "/data"], store=name), open(R + "/server.json", "w"), indent=1)
P
echo "$R/server.json"
