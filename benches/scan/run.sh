#!/bin/sh
# Scans with pillarbox and with ClamAV's clamscan, on the same signatures and the same files:
#   benches/scan/run.sh PILLARBOX [HASHES [PATTERNS]]
# Figures of both come from the kernel: the largest resident set, and the time.
set -eu
pillarbox=$(realpath "$1")
hashes=${2:-1000000}
patterns=${3:-20000}
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 "$here/generate.py" "$work" "$hashes" "$patterns"
mkdir "$work/data"
measured() {
    name=$1
    shift
    python3 - "$name" "$@" <<'EOF'
import resource, subprocess, sys, time
start = time.monotonic()
done = subprocess.run(sys.argv[2:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
found = done.stdout.count(" FOUND\n")
print(f"{sys.argv[1]:34} {time.monotonic() - start:8.2f} s  {used.ru_maxrss / 1024:8.1f} MiB  {found} found")
EOF
}
echo "$hashes digests, $patterns patterns"
measured "pillarbox, compile" "$pillarbox" signatures --data "$work/data" add "$work/db/hashes.hdb" "$work/db/patterns.ndb"
measured "pillarbox, nothing to scan" "$pillarbox" scan --data "$work/data" /dev/null
measured "pillarbox, mixed files" "$pillarbox" scan --data "$work/data" "$work/mixed"
measured "pillarbox, planted files" "$pillarbox" scan --data "$work/data" "$work/planted"
command -v clamscan >/dev/null || { echo "clamscan is not there (Debian: clamav)"; exit 0; }
measured "clamscan, nothing to scan" clamscan --database="$work/db" --no-summary /dev/null
measured "clamscan, mixed files" clamscan --database="$work/db" --no-summary -r "$work/mixed"
measured "clamscan, planted files" clamscan --database="$work/db" --no-summary -r "$work/planted"
