"""Keys by etcdctl: every option of `put`, `get`, `del`, `txn` and `compaction`, in each output format."""

from tests.conformance.etcd.steps import Begin, Call, Ctl, Lines, Scenario, Step, Type

FILL = tuple(Ctl(f"put {key} {value}") for key, value in (("a/1", "z"), ("a/2", "y"), ("a/3", "x"), ("b", "w")))
FORMATS = ("simple", "fields", "json", "protobuf", "table")


def each_format(words: str) -> tuple[Step, ...]:
    """The same words in every format that is text."""
    return tuple(Ctl(f"{words} -w {form}") for form in FORMATS if form != "protobuf")


SCENARIOS = (
    Scenario(
        "etcdctl put",
        (
            Ctl("put k v"),
            Ctl("put k v2 --prev-kv"),
            *each_format("put k v3 --prev-kv"),
            Ctl("put k --ignore-value --prev-kv -w json"),
            Ctl("put none --ignore-value"),
            Ctl("put none v --ignore-lease"),
            Ctl("put k v --ignore-value"),
            Ctl("put k v --lease=123abc"),
            Ctl("put k v --lease=xyz"),
            Ctl("put k", stdin="from standard input"),
            Ctl("put k -- -v"),
            Ctl("put '' v"),
            Ctl("put"),
            Ctl("put k v w"),
            Ctl("get k -w json"),
        ),
    ),
    Scenario(
        "etcdctl put with a lease",
        (
            Call("Lease/LeaseGrant", {"ID": 0x1234, "TTL": 600}),
            Ctl("put l 1 --lease=1234"),
            Ctl("put l 2 --ignore-lease"),
            Ctl("get l -w json"),
            Ctl("put l --ignore-value --lease=0"),
            Ctl("get l -w json"),
            Ctl("put l 2 --lease=1234 --ignore-lease"),
            Ctl("lease timetolive 1234 --keys"),
        ),
    ),
    Scenario(
        "etcdctl get",
        (
            *FILL,
            *each_format("get a/1"),
            *each_format("get a/ --prefix"),
            *each_format("get none"),
            Ctl("get a/1 a/3"),
            Ctl("get a/2 --from-key"),
            Ctl("get '' --prefix --keys-only"),
            Ctl("get '' --from-key --print-value-only"),
            Ctl("get a/ --prefix --limit=2 -w json"),
            Ctl("get a/ --prefix --limit=3 -w json"),
            Ctl("get a/ --prefix --count-only -w json"),
            Ctl("get a/ --prefix --count-only --write-out=fields"),
            Ctl("get a/ --prefix --keys-only -w json"),
            Ctl("get a/1 --hex"),
            Ctl("get a/ --prefix --consistency=s -w json"),
            Ctl("get a/ --prefix --consistency=l -w json"),
            Ctl("get a/ --prefix --consistency=x"),
            Ctl("get a/ --prefix --from-key"),
            Ctl("get a/ b --prefix"),
            Ctl("get"),
            Ctl("get ''"),
        ),
    ),
    Scenario(
        "etcdctl get, sorted",
        (
            *FILL,
            Ctl("put a/2 v"),
            *(
                Ctl(f"get '' --prefix --order={order} --sort-by={by} -w json")
                for order in ("ASCEND", "DESCEND")
                for by in ("CREATE", "KEY", "MODIFY", "VALUE", "VERSION")
            ),
            Ctl("get '' --prefix --order=DESCEND --sort-by=VALUE --limit=2 -w json"),
            Ctl("get '' --prefix --sort-by=MODIFY -w json"),
            Ctl("get '' --prefix --order=ASCEND -w json"),
            Ctl("get '' --prefix --order=UP"),
            Ctl("get '' --prefix --sort-by=COLOUR"),
        ),
    ),
    Scenario(
        "etcdctl get at a revision",
        (
            *FILL,
            Ctl("put a/1 2"),
            Ctl("del a/2"),
            Ctl("get '' --prefix --rev={base+1} -w json"),
            Ctl("get '' --prefix --rev={base+4} -w json"),
            Ctl("get '' --prefix --rev={base+6} -w json"),
            Ctl("get a/2 --rev={base+5} -w json"),
            Ctl("get a/2 --rev={base+6} -w json"),
            Ctl("get a/1 --rev={base+7}"),
            Ctl("get a/1 --rev=-1 -w json"),
            Ctl("compaction {base+5} -w json"),
            Ctl("get a/1 --rev={base+4}"),
            Ctl("get a/1 --rev={base+4} -w json"),
            Ctl("get a/2 --rev={base+5} -w json"),
            Ctl("compaction {base+5}"),
            Ctl("compaction {base+100}"),
            Ctl("compaction {base+6} --physical"),
            Ctl("compaction 0"),
            Ctl("compaction x"),
            Ctl("compaction"),
            Ctl("get '' --prefix -w json"),
        ),
    ),
    Scenario(
        "etcdctl del",
        (
            *FILL,
            *each_format("del none"),
            Ctl("del a/1 --prev-kv -w json"),
            Ctl("del a/2 a/3 --prev-kv"),
            Ctl("get '' --prefix -w json"),
            *FILL,
            Ctl("del a/ --prefix --prev-kv"),
            Ctl("del a/ --prefix"),
            *FILL,
            Ctl("del a/3 --from-key --prev-kv -w fields"),
            Ctl("del '' --prefix -w json"),
            Ctl("get '' --prefix -w json"),
            Ctl("del '' --from-key -w json"),
            Ctl("del ''"),
            Ctl("del"),
            Ctl("del a b --prefix"),
            Ctl("del a --prefix --from-key"),
        ),
    ),
    Scenario(
        "etcdctl txn",
        (
            Ctl("put k v"),
            *(
                Ctl(f"txn -w {form}", stdin='value("k") = "v"\n\nput k v\nget k\ndel none\n\nget none\n\n')
                for form in ("simple", "json", "fields", "table")
            ),
            Ctl("txn", stdin='mod("k") > "1"\nver("k") = "5"\ncreate("k") = "{base+1}"\n\nget k\n\nget x\n\n'),
            Ctl("txn", stdin='val("k") < "w"\n\ndel k --prev-kv\n\n\n'),
            Ctl("txn", stdin='ver("k") = "0"\n\nput k again --prev-kv\n\nget k\n\n'),
            Ctl("txn", stdin='val("k") = "other"\n\n\nget k\nget k --prefix --limit=1\nput k 3 --prev-kv\n\n'),
            Ctl("txn", stdin='version("k") > "0"\n\nget k\n\n\n'),
            Ctl("txn", stdin="\n\n\n"),
            Ctl("txn", stdin='colour("k") = "v"\n\n\n\n'),
            Ctl("txn", stdin="\nput k 1\nput k 2\n\n\n"),
            Ctl("txn", stdin="\nget k --rev={base+100}\n\n\n"),
            Ctl("txn", stdin="\nput k 9 --lease=77\n\n\n"),
            Ctl("txn", stdin="\njump k\n\n\n"),
            Ctl("get '' --prefix -w json"),
        ),
    ),
    Scenario(
        "etcdctl lock with a command",
        (
            Ctl("lock mutex -- sh -c 'echo $ETCD_LOCK_REV; exit 3'"),
            Ctl("lock mutex -- true"),
            Ctl("get '' --prefix -w json"),
        ),
    ),
    Scenario(
        "etcdctl txn, interactive",
        (
            Begin("txn", "txn --interactive"),
            Type("txn", 'ver("k") = "0"\n\nput k v\nget k\n\nget k\n\n'),
            Lines("txn"),
            Ctl("get k -w json"),
        ),
    ),
)
