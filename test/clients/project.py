"""A Django project around what docs/clients.md shows of the app "shop".

project.py migrate      apply all migrations of the app
project.py zero         take them back
project.py schedule     call schedule() of shop/invoices.py

The page's files are in the folder shop of the current folder. What they take for there is made here: the model Customer
and the first migration.
"""

import pathlib
import sys

import django
from django.conf import settings
from django.core.management import call_command

CUSTOMER = '''
class Customer(models.Model):
    id = models.IntegerField(primary_key=True)
    name = models.TextField()

    class Meta:
        managed = False
        db_table = "customers"
'''

INITIAL = '''
from django.db import migrations

class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.RunSQL(
            """CREATE TABLE customers (id integer PRIMARY KEY, name text);
               CREATE TABLE outbox (customer_id integer, note text)""",
            "DROP TABLE customers, outbox",
        )
    ]
'''

shop = pathlib.Path("shop")
for name in ("__init__.py", "migrations/__init__.py"):
    (shop / name).touch()
(shop / "migrations/0001_initial.py").write_text(INITIAL, encoding="utf-8")
models = (shop / "models.py").read_text(encoding="utf-8")
if "class Customer" not in models:
    (shop / "models.py").write_text(models + "\n" + CUSTOMER, encoding="utf-8")

sys.path.insert(0, ".")
settings.configure(
    INSTALLED_APPS=["shop"],
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    # libpq takes all else from the environment.
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": sys.argv[2]}},
)
django.setup()
if sys.argv[1] == "migrate":
    call_command("migrate", verbosity=0)
elif sys.argv[1] == "zero":
    call_command("migrate", "shop", "zero", verbosity=0)
else:
    from shop.invoices import schedule

    schedule()
