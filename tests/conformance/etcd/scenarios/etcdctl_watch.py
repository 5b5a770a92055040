"""`etcdctl watch`: every option, output format and way to end."""

from tests.conformance.etcd.steps import Begin, Ctl, Lines, Scenario, Type


def watching(words: str, lines_each: int, form: str = "simple") -> Scenario:
    """A watch from a revision on, so that it does not matter when it begins."""
    return Scenario(
        f"etcdctl watch {words} -w {form}",
        (
            Ctl("put w/1 a"),
            Ctl("put w/1 b"),
            Begin("watch", f"watch {words} --rev={{base+2}} -w {form}"),
            Lines("watch", lines_each),
            Ctl("put w/1 c"),
            Lines("watch", lines_each),
            Ctl("del w/1"),
            Lines("watch", lines_each),
        ),
    )


SCENARIOS = (
    watching("w/1", 3),
    watching("w/ --prefix", 3),
    watching("w/ --prefix", 1, "json"),
    watching("w/ w/2 --prev-kv", 1, "json"),
    Scenario(
        "etcdctl watch --progress-notify",
        (
            Ctl("put w a"),
            Begin("watch", "watch w --progress-notify --rev={base+1}"),
            Lines("watch", 4),
        ),
    ),
    Scenario(
        "etcdctl watch --prev-kv in the simple and fields formats",
        (
            Ctl("put w a"),
            Ctl("put w b"),
            Ctl("del w"),
            Begin("simple", "watch w --prev-kv --rev={base+1}"),
            Lines("simple", 12),
            Begin("fields", "watch w --prev-kv --rev={base+1} -w fields"),
            Lines("fields", 30),
        ),
    ),
    Scenario(
        "etcdctl watch of what was compacted",
        (
            Ctl("put w a"),
            Ctl("put w b"),
            Ctl("compaction {base+2}"),
            Ctl("watch w --rev={base+1}"),
            Ctl("watch w --rev={base+1} -w json"),
            Ctl("watch w --rev={base+1} -w fields"),
        ),
    ),
    Scenario(
        "etcdctl watch with a command",
        (
            Ctl("put w a"),
            Begin("exec", "watch w --rev={base+1} -- sh -c 'env | grep ETCD_WATCH_ | sort'"),
            Lines("exec", 7),
        ),
    ),
    Scenario(
        "etcdctl watch, interactive",
        (
            Ctl("put w a"),
            Ctl("put v b"),
            Begin("watch", "watch --interactive"),
            Type("watch", "watch w --rev={base+1}\n"),
            Lines("watch", 3),
            Type("watch", "progress\n"),
            Lines("watch", 1),
            Type("watch", "watch v --rev={base+2} --prev-kv\n"),
            Lines("watch", 3),
            Type("watch", "nonsense\n"),
            Lines("watch", 1),
        ),
    ),
    Scenario(
        "etcdctl watch, misused",
        (
            Ctl("watch"),
            Ctl("watch a --rev=x"),
            Ctl("watch a b --prefix"),
            Ctl("watch '' --prefix --rev={base+100} --nonsense"),
        ),
    ),
)
