#!/usr/bin/env bash
# A Slurm of two nodes on this machine (Debian's slurm-wlm and munge) for as long as a command runs: two_nodes.sh COMMAND...
# Everything it writes, and its munge key, lies in a temporary folder. Needs root.
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
export SLURM_CONF=$folder/slurm.conf # before anything is asked of Slurm: a machine may have another one
started=()
stop() {
  for _ in $(seq 50); do # a job outlives the daemons
    jobs=$(squeue --noheader --format %A 2> /dev/null) && [ "$jobs" ] || break
    scancel --full --signal KILL $jobs 2> /dev/null || true
    scancel $jobs 2> /dev/null || true
    sleep 0.2
  done
  kill "${started[@]}" 2> /dev/null || true
  wait
  rm -rf "$folder"
}
trap stop EXIT
trap 'exit 143' TERM INT

read -r ctld first second < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*[one.getsockname()[1] for one in held])')

head -c 1024 /dev/urandom > "$folder/munge.key"
chmod 600 "$folder/munge.key"
munged --foreground --force --num-threads 2 --key-file "$folder/munge.key" --socket "$folder/munge.socket" --pid-file "$folder/munge.pid" \
  --log-file "$folder/munge.log" --seed-file "$folder/munge.seed" 2> /dev/null &
started+=($!)

cat > "$SLURM_CONF" << END
ClusterName=two_nodes
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=$ctld
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# a requeued job starts again after this many seconds; 120 by default
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdSpoolDir=$folder/spool.%n
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmdLogFile=$folder/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName=node1 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$first CPUs=2
NodeName=node2 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$second CPUs=2
PartitionName=all Nodes=ALL Default=YES State=UP
END
mkdir "$folder/state"

slurmctld -D 2> /dev/null &
started+=($!)
for node in node1 node2; do
  slurmd -D -N "$node" 2> /dev/null &
  started+=($!)
done
for _ in $(seq 600); do
  [ "$(sinfo --noheader --states idle --format %D 2> /dev/null)" = 2 ] && break
  sleep 0.1
done
[ "$(sinfo --noheader --states idle --format %D)" = 2 ] || { tail -n 20 "$folder"/*.log >&2 && exit 1; }

status=0
"$@" || status=$?
[ "$status" = 0 ] || tail -n 20 "$folder"/*.log >&2
exit "$status"
