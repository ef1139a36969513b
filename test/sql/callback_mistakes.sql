-- What is said of a callback or kwargs that cannot be: message, DETAIL, HINT, CONTEXT and SQLSTATE of each mistake.
--
-- Nothing is left behind by a mistake, so no task ever runs here; the last part is about what is wrong only when
-- a task is tried.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = notice;

CREATE ROLE regress_app LOGIN;
CREATE SCHEMA app;
CREATE SCHEMA secret;
CREATE SCHEMA billing;
GRANT USAGE ON SCHEMA app, billing, taskshed TO regress_app;
SET search_path = app;
SET check_function_bodies = off;

-- Prints what an error says; of its context only the lines that are ours.
CREATE PROCEDURE fails(command text) LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	detail text;
	hint text;
	context text;
BEGIN
	EXECUTE command;
	RAISE NOTICE 'NO ERROR';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
	SELECT string_agg(line, E'\n') INTO context FROM string_to_table(context, E'\n') line
	WHERE line ~ '^(argument "|element [0-9]|callback )';
	-- (the one with very many arguments is not spelt out each time)
	context := regexp_replace(context, 'types\([^)]*\)', 'types(...)');
	message := replace(message, '"' || session_user || '"', '(me)');
	hint := replace(hint, '"DateStyle"', '"datestyle"');	-- as 18 writes it
	RAISE NOTICE '%: %', state, message || coalesce(E'\nDETAIL:  ' || nullif(detail, ''), '') ||
		coalesce(E'\nHINT:  ' || nullif(hint, ''), '') || coalesce(E'\nCONTEXT:  ' || context, '');
END $$;
-- Schedules a call.
CREATE PROCEDURE mistake(callback text, kwargs jsonb DEFAULT NULL) LANGUAGE plpgsql AS $$
BEGIN
	CALL app.fails(format('SELECT taskshed.add_task(%L, ''2100-01-01'', %L)', callback, kwargs));
END $$;
GRANT ALL ON ALL ROUTINES IN SCHEMA app TO regress_app;

CREATE DOMAIN percentage AS integer CONSTRAINT percentage_range CHECK (VALUE BETWEEN 0 AND 100);
CREATE DOMAIN required AS text NOT NULL;
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TYPE address AS (street text, number integer);
CREATE TYPE customer AS (name text, home address, share percentage);

CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION send_invoice(customer_id integer) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION transfer(source integer, target integer, amount numeric(10,2), note text DEFAULT '') RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION "sendInvoice"("customerId" integer) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION unnamed(integer, b text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION nap(double precision) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION unnamed_default(integer DEFAULT 1) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION "Refresh All"() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION "weird()"() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION report(day date) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION report(week integer) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION same(a text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION same(a integer) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION defaults(a integer DEFAULT 1) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION defaults(b text DEFAULT '') RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION outs(a integer, OUT result integer) LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION tables(a integer) RETURNS TABLE (x integer, y integer) LANGUAGE sql AS 'SELECT a, a';
CREATE PROCEDURE load(batch integer, INOUT total integer DEFAULT 0) LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION whole(kwargs json) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION whole_and_more(kwargs jsonb, other integer) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION types(i integer DEFAULT 0, n numeric DEFAULT 0, b boolean DEFAULT false, t timestamptz DEFAULT now(), d date DEFAULT now(),
	u uuid DEFAULT NULL, m mood DEFAULT NULL, p percentage DEFAULT 0, r required DEFAULT '', a integer[] DEFAULT NULL,
	c customer DEFAULT NULL, cs customer[] DEFAULT NULL, x int4range DEFAULT NULL, v varchar(3) DEFAULT '', y bytea DEFAULT NULL,
	net inet DEFAULT NULL, e interval DEFAULT NULL, j json DEFAULT NULL, s smallint DEFAULT 0, f real DEFAULT 0)
RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION any_two(x anyelement, y anyelement) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION any_range(x anyrange) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION any_enum(x anyenum) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION a_cstring(c cstring) RETURNS void LANGUAGE internal AS 'unknownin';
CREATE FUNCTION an_internal(i internal) RETURNS void LANGUAGE internal AS 'unknownin';
CREATE FUNCTION variadic_any(VARIADIC "any") RETURNS void LANGUAGE internal AS 'unknownin';
CREATE FUNCTION variadics(VARIADIC numbers integer[]) RETURNS bigint LANGUAGE sql AS 'SELECT sum(n) FROM unnest(numbers) n';
CREATE FUNCTION joined(separator text, VARIADIC texts text[] DEFAULT '{x,y}') RETURNS text LANGUAGE sql AS 'SELECT separator';
CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION ddl_done() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE AGGREGATE total(n integer) (SFUNC = int4pl, STYPE = integer);
CREATE FUNCTION secret.inside() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION app.guarded(a integer) RETURNS void LANGUAGE sql AS '';
CREATE PROCEDURE app.guarded_procedure() LANGUAGE sql AS '';
CREATE PROCEDURE app.guarded_twice(a integer) LANGUAGE sql AS '';
CREATE FUNCTION app.guarded_twice(b text) RETURNS void LANGUAGE sql AS '';
REVOKE ALL ON ROUTINE app.guarded_twice(a integer), app.guarded_twice(b text) FROM PUBLIC;
REVOKE ALL ON FUNCTION app.guarded(integer) FROM PUBLIC;
REVOKE ALL ON PROCEDURE app.guarded_procedure() FROM PUBLIC;
CREATE FUNCTION billing.charge_all(customer_id integer) RETURNS void LANGUAGE sql AS '';


-- The name
CALL fails($$SELECT taskshed.add_task(NULL)$$);
CALL mistake('');
CALL mistake('  ');
CALL mistake('send_invoice()');
CALL mistake('send_invoice(42)');
CALL mistake('send_invoice ()');
CALL mistake(E' app.send_invoice\n( customer_id => 42 ) ; ');
CALL mistake('"my un"()');
CALL mistake('app."a ""b"" (c)" (1)');
CALL mistake('VACUUM (ANALYZE)');
CALL mistake('VACUUM (ANALYZE) orders');
CALL mistake('"my un');
CALL mistake('app.send_invoice(customer_id => 42)');
CALL mistake('send_invoice;');
CALL mistake('SELECT send_invoice(42)');
CALL mistake('VACUUM orders');
CALL mistake('DELETE FROM app.orders; COMMIT');
CALL mistake('CALL app.load()');
CALL mistake('REINDEX');
CALL mistake('app.');
CALL mistake('.send_invoice');
CALL mistake('app..send_invoice');
CALL mistake('shop.app.send_invoice');
CALL mistake('"send_invoice');
CALL mistake('""');
CALL mistake('app.send-invoice');
CALL mistake('Refresh All');
CALL mistake('refresh all');
CALL mistake('"Refresh All"', '{"a": 1}');
CALL mistake('weird()');
CALL mistake(repeat('x ', 40));
CALL mistake('send_invoce');
CALL mistake('app.send_invoce');
CALL mistake('charge_all', '{"customer_id": 1}');
CALL mistake('public.charge_all', '{"customer_id": 1}');
CALL mistake('billling.charge_all', '{"customer_id": 1}');
CALL mistake('no_such_function_anywhere');
CALL mistake('no_such_schema.no_such_function_anywhere');
CALL mistake('sendInvoice', '{"customerId": 1}');
CALL mistake('"Send_Invoice"', '{"customer_id": 1}');
CALL mistake('it''s "odd', '{"a": 1}');
CALL mistake(E'line\nbreak');
CALL mistake(repeat('x', 64));
CALL mistake('percentage');
CALL mistake('taskshed.no_such');
CALL mistake('taskshed.execute', '{"sql": "VACUUM"}');
CALL mistake('taskshed.execute', '{"cmd": "VACUUM"}');
CALL mistake('taskshed.execute');

-- The names of the arguments
CALL mistake('send_invoice', '{"custmer_id": 42}');
CALL mistake('send_invoice', '{"customerId": 42}');
CALL mistake('send_invoice', '{"CUSTOMER_ID": 42}');
CALL mistake('send_invoice', '{"id": 42}');
CALL mistake('send_invoice', '{"customer_id": 42, "amount": 1}');
CALL mistake('send_invoice', '{"": 42}');
CALL mistake('send_invoice', '{"customer_id ": 42}');
CALL mistake('send_invoice', '{"customer_id\n": 42, "x": 1}');
CALL mistake('nothing', '{"a": 1}');
CALL mistake('send_invoice');
CALL mistake('send_invoice', '{}');
CALL mistake('transfer', '{"currency": 1}');
CALL mistake('transfer', '{"amount": 1, "note": ""}');
CALL mistake('transfer', '{"source": 1, "amount": 1}');
CALL mistake('transfer', '{"source": 1, "target": 2, "amonut": 1}');
CALL mistake('unnamed', '{"b": "x"}');
CALL mistake('unnamed', '{"c": 1}');
CALL mistake('nap', '{"seconds": 1}');
CALL mistake('nap');
CALL mistake('unnamed_default', '{"c": 1}');
CALL mistake('unnamed', '{"": 1, "b": "x"}');
CALL mistake('variadic_any', '{"any": 1}');
CALL mistake('outs', '{"a": 1, "result": 2}');
CALL mistake('tables', '{"a": 1, "x": 2}');
CALL mistake('load', '{"total": 1}');
CALL mistake('report');
CALL mistake('report', '{"month": 1}');
CALL mistake('same', '{"a": 1}');
CALL mistake('defaults');
CALL mistake('whole', '{"a": 1}');
CALL mistake('whole_and_more', '{"a": 1}');
CALL mistake('variadics', '{"1": 1, "2": 2}');
CALL mistake('variadics');
CALL mistake('joined', '{"separator": "-"}');
CALL fails($$SELECT taskshed.add_task('nothing', '2100-01-01', jsonb_object_agg('key' || i, i)) FROM generate_series(1, 101) i$$);

-- kwargs as such
CALL mistake('send_invoice', '[42]');
CALL mistake('send_invoice', '42');
CALL mistake('send_invoice', 'null');
CALL mistake('send_invoice', '"{\"customer_id\": 42}"');
CALL mistake('send_invoice', '"customer_id"');
CALL mistake('send_invoice', '[{"customer_id": 42}]');

-- The kind of function
CALL mistake('total', '{"n": 1}');
CALL mistake('count');
CALL mistake('pg_catalog.row_number');
CALL mistake('changed');
CALL mistake('ddl_done');
CALL mistake('any_range', '{"x": "[1,2)"}');
CALL mistake('any_enum', '{"x": "sad"}');
CALL mistake('a_cstring', '{"c": "x"}');
CALL mistake('an_internal', '{"i": 1}');
CALL mistake('any_two', '{"x": 1, "y": "one"}');

-- Values that do not fit
CALL mistake('types', '{"i": "one"}');
CALL mistake('types', '{"i": 1.5}');
CALL mistake('types', '{"i": 2147483648}');
CALL mistake('types', '{"s": 32768}');
CALL mistake('types', '{"f": 1e300}');
CALL mistake('types', '{"i": true}');
CALL mistake('types', '{"i": ""}');
CALL mistake('types', '{"i": {"value": 1}}');
CALL mistake('types', '{"n": "1,50"}');
CALL mistake('types', '{"b": "maybe"}');
CALL mistake('types', '{"b": 2}');
CALL mistake('types', '{"t": "tomorrow at noon"}');
CALL mistake('types', '{"t": 1700000000}');
CALL mistake('types', '{"t": "2100-01-01 00:00 Nowhere/City"}');
CALL mistake('types', '{"d": "2100-02-30"}');
CALL mistake('types', '{"d": "31.12.2100"}');
CALL mistake('types', '{"e": "soon"}');
CALL mistake('types', '{"u": "1234"}');
CALL mistake('types', '{"m": "angry"}');
CALL mistake('types', '{"p": 101}');
CALL mistake('types', '{"r": null}');
CALL mistake('types', '{"a": 1}');
CALL mistake('types', '{"a": "1, 2"}');
CALL mistake('types', '{"a": [1, "two"]}');
CALL mistake('types', '{"a": [[1, 2], [3]]}');
CALL mistake('types', '{"c": "Ann"}');
CALL mistake('types', '{"c": ["Ann"]}');
CALL mistake('types', '{"c": {"name": "Ann", "home": {"number": "two"}}}');
CALL mistake('types', '{"c": {"share": 101}}');
CALL mistake('types', '{"cs": [{"share": 1}, {"share": 101}]}');
CALL mistake('types', '{"x": "[2,1]"}');
CALL mistake('types', '{"y": "\\xf"}');
CALL mistake('types', '{"net": "10.0.0"}');
CALL mistake('types', '{"i": 1, "p": 101, "m": "sad"}');
CALL mistake('taskshed.execute', '{"command": "SELEC 1"}');
CALL mistake('taskshed.execute', '{"command": null}');
CALL mistake('taskshed.execute', '{"command": "SELECT 1; SELEC 2"}');
CALL mistake('taskshed.execute', '{"command": "BEGIN"}');
CALL mistake('taskshed.execute', '{"command": "BEGIN; PREPARE TRANSACTION ''x''"}');
CALL mistake('taskshed.execute', '{"command": "COPY t TO STDOUT"}');

-- In add_tasks the element is named too.
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing"}, {"callback": "send_invoice", "kwargs": {"custmer_id": 1}}]')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "nothing"}, {"callback": "send_invoice", "kwargs": {"customer_id": "x"}}]')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"callback": "send_invoice()"}]')$$);
CALL fails($$SELECT taskshed.add_tasks('[{"kwargs": {"customer_id": 1}}]')$$);

-- What one may not
SET ROLE regress_app;
CALL mistake('guarded', '{"a": 1}');
CALL mistake('guarded', '{"b": 1}');
CALL mistake('guarded_procedure');
CALL mistake('guarded_twice', '{"a": 1}');
CALL mistake('guarded_twice', '{"b": "x"}');
CALL mistake('secret.inside');
CALL mistake('inside');
CALL mistake('taskshed.execute', '{"command": "VACUUM"}');
CALL mistake('taskshed._alarm_changed');
CALL fails($$SELECT taskshed.add_task('nothing', owner => 'pg_database_owner')$$);
RESET ROLE;
REVOKE USAGE ON SCHEMA billing FROM regress_app;
CALL fails($$SELECT taskshed.add_task('billing.charge_all', kwargs => '{"customer_id": 1}', owner => 'regress_app')$$);
CALL fails($$SELECT taskshed.add_task('guarded', kwargs => '{"a": 1}', owner => 'regress_app')$$);

-- An empty search_path
SET search_path = '';
CALL app.mistake('nothing');
CALL app.fails($$SELECT taskshed.add_task('nothing', validate => false)$$);
SET search_path = app;

SELECT count(*) FROM taskshed.tasks;

-- What is wrong only later
SELECT taskshed.add_task('send_invoice', '2100-01-01', '{"customer_id": 42}', task_id => 'invoice');
SELECT taskshed.add_task('types', '2100-01-01', '{"p": 42, "m": "happy"}', task_id => 'types');
SELECT taskshed.add_task('comes_later', '2100-01-01', '{"anything": 1}', task_id => 'later', validate => false);
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'guarded', owner => 'regress_app');
SELECT taskshed.add_task('taskshed.execute', '2100-01-01', '{"command": "VACUUM"}', task_id => 'execute');
CALL fails($$SELECT taskshed.try_task('later')$$);
CALL fails($$SELECT taskshed.try_task('no such task')$$);
CALL fails($$SELECT taskshed.try_task('execute')$$);
BEGIN;
ALTER FUNCTION send_invoice(integer) RENAME TO post_invoice;
CALL fails($$SELECT taskshed.try_task('invoice')$$);
ROLLBACK;
BEGIN;
ALTER FUNCTION send_invoice(integer) SET SCHEMA billing;
CALL fails($$SELECT taskshed.try_task('invoice')$$);
ROLLBACK;
BEGIN;
DROP FUNCTION send_invoice(integer);
CALL fails($$SELECT taskshed.try_task('invoice')$$);
CREATE FUNCTION send_invoice(customer bigint) RETURNS void LANGUAGE sql AS '';
CALL fails($$SELECT taskshed.try_task('invoice')$$);
DROP FUNCTION send_invoice(bigint);
CREATE FUNCTION send_invoice(customer_id integer, amount numeric) RETURNS void LANGUAGE sql AS '';
CALL fails($$SELECT taskshed.try_task('invoice')$$);
DROP FUNCTION send_invoice(integer, numeric);
CREATE FUNCTION send_invoice(customer_id date) RETURNS void LANGUAGE sql AS '';
CALL fails($$SELECT taskshed.try_task('invoice')$$);
ROLLBACK;
BEGIN;
DROP FUNCTION types;
CREATE DOMAIN low AS integer CONSTRAINT low_enough CHECK (VALUE < 10);
CREATE FUNCTION types(p low, m mood) RETURNS void LANGUAGE sql AS '';
CALL fails($$SELECT taskshed.try_task('types')$$);
ROLLBACK;
BEGIN;
ALTER TYPE mood RENAME VALUE 'happy' TO 'glad';
CALL fails($$SELECT taskshed.try_task('types')$$);
ROLLBACK;
BEGIN;
REVOKE ALL ON FUNCTION nothing() FROM PUBLIC;
SET LOCAL ROLE regress_app;
CALL fails($$SELECT taskshed.try_task('guarded')$$);
ROLLBACK;
BEGIN;
CREATE SCHEMA closed;
ALTER FUNCTION nothing() SET SCHEMA closed;
SET LOCAL ROLE regress_app;
CALL fails($$SELECT taskshed.try_task('guarded')$$);
ROLLBACK;

SELECT taskshed.remove_all_tasks();
SELECT taskshed.remove_all_tasks(owner => 'regress_app');
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA app CASCADE;
DROP SCHEMA secret CASCADE;
DROP SCHEMA billing CASCADE;
REVOKE ALL ON SCHEMA taskshed FROM regress_app;
DROP ROLE regress_app;
