"""What no other topic runs of etcdctl: elections, locks that end, mirrors, sums, defragmentation, passwords."""

from tests.conformance.etcd.steps import Begin, Ctl, Lines, Scenario, Type, Until

SCENARIOS = (
    Scenario(
        "etcdctl elect",
        (
            Begin("first", "elect e one"),
            Lines("first", 2),
            Begin("second", "elect e two"),
            Until(Ctl("get e/ --prefix --print-value-only --sort-by=CREATE"), "two"),
            Begin("listener", "elect --listen e"),
            Lines("listener", 2),
            Ctl("elect"),
            Ctl("elect --listen"),
            Ctl("elect e"),
        ),
    ),
    Scenario(
        "etcdctl lock, held",
        (
            Begin("holder", "lock mutex --ttl=60"),
            Lines("holder", 1),
            Ctl("lease list -w json", save={"held_id": "leases.0.id"}),
            Ctl("lease timetolive {held_id:x}"),
            Ctl("lease revoke {held_id:x}"),
            Ctl("lock mutex -- echo mine"),
            Ctl("lock"),
        ),
    ),
    Scenario(
        "etcdctl make-mirror",
        (
            Ctl("put a/1 one"),
            Begin("mirror", "make-mirror --prefix=a/ --dest-prefix=b/ {leader_client}"),
            Until(Ctl("get b/ --prefix"), "one"),
            Ctl("put a/2 two"),
            Until(Ctl("get b/ --prefix"), "two"),
            Ctl("del a/1"),
            Until(Ctl("get b/1 -w json"), '"revision"'),
            Begin("bare", "make-mirror --prefix=a/ --no-dest-prefix {leader_client}"),
            Until(Ctl("get 2"), "two"),
            Ctl("make-mirror"),
            Ctl("make-mirror --no-dest-prefix --dest-prefix=c/ {leader_client}"),
        ),
    ),
    Scenario(
        "etcdctl endpoint hashkv",
        (
            Ctl("compaction {base}"),
            Ctl("put k 1"),
            Ctl("put k 2"),
            Ctl("del k"),
            Ctl("put k 3"),
            *(Ctl(f"endpoint hashkv -w {form}") for form in ("simple", "json", "table")),
            Ctl("endpoint hashkv --rev={base+2} -w json"),
            Ctl("endpoint hashkv --rev={base+3}"),
            Ctl("endpoint hashkv --rev={base+100}"),
            Ctl("compaction {base+3}"),
            Ctl("endpoint hashkv --rev={base+2}"),
            Ctl("endpoint hashkv"),
            Ctl("endpoint hashkv --cluster"),
        ),
    ),
    Scenario(
        "etcdctl defrag",
        (
            Ctl("put k v"),
            Ctl("defrag"),
            Ctl("defrag --cluster"),
            Ctl("get k -w json"),
        ),
    ),
    Scenario(
        "etcdctl user add, every way to give a password",
        (
            Ctl("user add one --new-user-password=secret"),
            Ctl("user add two:secret"),
            Ctl("user add three --no-password"),
            Ctl("user add four --interactive=false", stdin="secret\n"),
            Ctl("user add five --interactive=false", stdin=""),
            Ctl("user add one --new-user-password=other"),
            Ctl("user add '' --no-password"),
            Ctl("user list"),
            Ctl("user passwd one --interactive=false", stdin="new\n"),
            *(Ctl(f"user delete {name}") for name in ("one", "two", "three", "four", "five")),
        ),
    ),
    Scenario(
        "etcdctl watch, interactive, with a command",
        (
            Begin("watch", "watch -i"),
            Type("watch", "watch k --prev-kv --rev={base+1}\n"),
            Ctl("put k 1"),
            Ctl("put k 2"),
            Lines("watch", 8),
            Begin("run", "watch k --rev={base+1} -- sh -c 'echo $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY'"),
            Lines("run", 8),
        ),
    ),
)
