"""What docs/clients.md says in its tables of one of Python's clients, looked up: "probe.py psycopg" prints a line for each.

There are a task "monthly" with an interval of a month, which ends never.
"""

import json
import os
import sys

client = sys.argv[1]


def show(what, get):
    try:
        print(f"{what}: {get()}")
    except Exception as error:  # what it raises is what we want to know
        print(f"{what}: {type(error).__name__}: {str(error).splitlines()[0]}")


def show_mistake(error):
    """Show SQLSTATE and hint, by the first of the pairs of expressions from the page that this driver has."""
    ways = os.environ["MISTAKE"].split("\n")
    for pair in zip(ways[::2], ways[1::2]):
        try:
            print("mistake:", *(eval(way, {"error": error}) for way in pair))
            return
        except AttributeError:
            pass


def shown(value):
    return f"{type(value).__name__} {value}"


if client == "psycopg":
    import psycopg
    from psycopg.types.json import Jsonb as Json

    connection = psycopg.connect(autocommit=True)
elif client == "psycopg2":
    import psycopg2
    from psycopg2.extras import Json

    connection = psycopg2.connect("")
    connection.autocommit = True
elif client == "django":
    import django
    from django.conf import settings

    settings.configure(USE_TZ=True, DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"]}})
    django.setup()
    from django.db import connection

    Json = json.dumps

if client == "sqlalchemy":
    from sqlalchemy import create_engine, func, select, text
    from sqlalchemy.dialects.postgresql import array

    engine = create_engine("postgresql+psycopg2://")

    def one(query, **values):
        with engine.begin() as conn:
            return conn.execute(text(query) if isinstance(query, str) else query, values).scalar()

    # (1.4 says nothing of it.)
    try:
        text_of_func = str(select(func.taskshed.remove_tasks(group_id="g")))
        show("keyword lost", lambda: "group_id" not in text_of_func)
    except TypeError:
        show("keyword lost", lambda: True)
    show("double colon", lambda: one("SELECT taskshed.add_task('send_invoice', kwargs => :kwargs::jsonb)", kwargs="{}"))
    show("empty list", lambda: one("SELECT taskshed.remove_tasks(:ids)", ids=[]))
    show("empty array()", lambda: one(select(func.taskshed.remove_tasks(array([])))))
    try:
        one("SELECT taskshed.add_task('send_invoice', kwargs => CAST(:kwargs AS jsonb))", kwargs='{"custmer_id": 1}')
    except Exception as error:
        show_mistake(error)
    sys.exit()


def one(query, *values):
    with connection.cursor() as cur:
        cur.execute(query, values)
        return cur.fetchone()[0]


ADD = "SELECT taskshed.add_task('send_invoice', '2100-01-01', kwargs => %s, every => %s, task_id => 'probe')"
MONTHLY = "FROM taskshed.tasks WHERE task_id = 'monthly'"
show("every", lambda: shown(one(f"SELECT every {MONTHLY}")))
show("seconds", lambda: shown(one(f"SELECT extract(epoch FROM every)::float8 {MONTHLY}")))
show("run_count", lambda: shown(one(f"SELECT run_count {MONTHLY}")))
show("until", lambda: one(f"SELECT until {MONTHLY}"))
show("kwargs", lambda: shown(one(f"SELECT kwargs {MONTHLY}")))
show("dict", lambda: one(ADD, {"customer_id": 1}, "1 day"))
show("number", lambda: one(ADD, Json({"customer_id": 1}), 3600))
show("twice", lambda: one(ADD, Json(json.dumps({"customer_id": 1})) if client != "django" else json.dumps("{}"), "1 day"))
show("empty list", lambda: one("SELECT taskshed.remove_tasks(%s)", []))
show("tuple", lambda: one("SELECT taskshed.remove_tasks(%s)", ("a", "b")))
show("pairs", lambda: one("SELECT taskshed.update_execution_times(%s)", [("monthly", "2100-01-01")]))
show(
    "pairs, cast",
    lambda: one("SELECT taskshed.update_execution_times(%s::taskshed.task_execution_time[])", [("monthly", "2100-01-01")]),
)
show("None", lambda: one("SELECT taskshed.remove_tasks(%s)", None))
show("fetch None", lambda: one("SELECT count(*) > 0 FROM taskshed.fetch_tasks(%s)", None))
try:
    one(ADD, Json({"custmer_id": 1}), "1 day")
except Exception as error:
    show_mistake(error)
