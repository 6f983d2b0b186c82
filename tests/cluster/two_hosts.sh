#!/usr/bin/env bash
# Two hosts on one machine: network namespaces NAME-0 and NAME-1 with an address each, joined by a cable (a veth pair). Needs root and
# iproute2.
#   two_hosts.sh up NAME
#   two_hosts.sh torchrun NAME ARGUMENTS...   torchrun on both, a process each; their output goes to host-0.txt and host-1.txt
#   two_hosts.sh cut NAME                     pull the cable
#   two_hosts.sh down NAME
set -euo pipefail
action=$1 name=$2
shift 2

case $action in
up)
  for host in 0 1; do
    ip netns add "$name-$host"
    ip -n "$name-$host" link set lo up
  done
  ip link add eth0 netns "$name-0" type veth peer name eth0 netns "$name-1"
  for host in 0 1; do
    ip -n "$name-$host" addr add "10.10.0.$((host + 1))/24" dev eth0
    ip -n "$name-$host" link set eth0 up
  done
  ;;
torchrun)
  started=()
  trap 'kill "${started[@]}" 2> /dev/null || true' EXIT
  for host in 0 1; do # both hosts have this machine's name: hence --local-addr, is_host and the interface
    ip netns exec "$name-$host" env GLOO_SOCKET_IFNAME=eth0 torchrun --nnodes 2 --nproc-per-node 1 --rdzv-id "$name" \
      --rdzv-backend c10d --rdzv-endpoint 10.10.0.1:29400 --local-addr "10.10.0.$((host + 1))" --rdzv-conf "is_host=$((1 - host))" \
      "$@" > "host-$host.txt" 2>&1 &
    started+=($!)
  done
  status=0
  for pid in "${started[@]}"; do wait "$pid" || status=$?; done
  exit "$status"
  ;;
cut) ip -n "$name-1" link set eth0 down ;;
down) for host in 0 1; do ip netns del "$name-$host" || true; done ;;
*) echo "no action $action" >&2 && exit 2 ;;
esac
