-- The interface as the catalogs have it: what a user may rely on, and that each part of it is described.
-- A difference in the expected output is a change of the interface.
\pset null '(null)'
SET search_path = pg_catalog;

SELECT extname, extnamespace::regnamespace AS schema, extrelocatable, extversion, extconfig::regclass[] AS dumped
FROM pg_extension WHERE extname = 'taskshed';

-- Everything in the two schemas belongs to the extension, and nothing elsewhere does.
SELECT classid::regclass, objid
FROM (
	SELECT 'pg_class'::regclass, oid FROM pg_class WHERE relnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND relkind NOT IN ('i', 'c')
	UNION ALL
	SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE pronamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace)
) o (classid, objid)
EXCEPT
SELECT classid, objid FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'taskshed') AND deptype = 'e';
SELECT i.type, i.schema, i.identity
FROM pg_depend, pg_identify_object(classid, objid, objsubid) i
WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'taskshed') AND deptype = 'e' AND
	coalesce(i.schema, i.identity) NOT IN ('taskshed', '_taskshed');

-- Functions, with the names of their parameters
\pset format unaligned
\pset tuples_only on
SELECT format('%s(%s) returns %s', proname, regexp_replace(pg_get_function_arguments(oid), 'DEFAULT NULL::[^,]*', 'DEFAULT NULL', 'g'),
	coalesce(pg_get_function_result(oid), 'nothing, is a procedure'))
FROM pg_proc WHERE pronamespace = 'taskshed'::regnamespace
ORDER BY proname COLLATE "C", 1;
\pset tuples_only off
\pset format aligned
-- None is overloaded.
SELECT proname FROM pg_proc WHERE pronamespace = 'taskshed'::regnamespace GROUP BY proname HAVING count(*) > 1;
-- None is strict, run by parallel workers, taken for more stable than it is, or run as somebody else. (describe, _fit and _short_time only look at their arguments and settings; of _details the planner puts what it selects in its place.)
SELECT proname, proisstrict, proparallel, provolatile, prosecdef, proleakproof
FROM pg_proc
WHERE pronamespace = 'taskshed'::regnamespace AND
	(proisstrict OR proparallel <> 'u' OR provolatile <> 'v' OR prosecdef OR proleakproof)
ORDER BY proname COLLATE "C";
-- Every parameter but the first has a default.
SELECT proname, pronargs, pronargdefaults FROM pg_proc
WHERE pronamespace = 'taskshed'::regnamespace AND pronargs - pronargdefaults > 1;
-- No name that SQL wants quoted
SELECT proname, arg FROM pg_proc, unnest(proargnames) arg
WHERE pronamespace = 'taskshed'::regnamespace AND quote_ident(arg) <> arg;
-- Not for PUBLIC
SELECT proname FROM pg_proc
WHERE pronamespace = 'taskshed'::regnamespace AND
	NOT EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)
ORDER BY proname COLLATE "C";

-- Views and types, with their columns in order
SELECT c.relname AS relation, a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'taskshed'::regnamespace AND c.relkind IN ('v', 'c') AND a.attnum > 0
ORDER BY c.relname COLLATE "C", a.attnum;
-- What psql offers after FROM taskshed. is for users: views. All else is in the other schema, where there are no functions.
SELECT relnamespace::regnamespace, relkind, array_agg(relname ORDER BY relname COLLATE "C") FROM pg_class
WHERE relnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND relkind NOT IN ('i', 'c') GROUP BY relnamespace, relkind ORDER BY relnamespace::regnamespace::text COLLATE "C", relkind;
SELECT count(*) FROM pg_class WHERE relnamespace = 'taskshed'::regnamespace AND (relkind NOT IN ('v', 'c') OR relname ~ '^_');
SELECT count(*) FROM pg_proc WHERE pronamespace = '_taskshed'::regnamespace;

-- Settings
SELECT name, boot_val, unit, vartype, context, min_val, max_val, enumvals
FROM pg_settings WHERE name LIKE 'taskshed.%' ORDER BY name COLLATE "C";

-- Each has a description: no rows.
WITH described (kind, name, description) AS (
	SELECT 'schema', nspname::text, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname IN ('taskshed', '_taskshed')
	UNION ALL
	SELECT 'extension', extname, obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'taskshed'
	UNION ALL
	SELECT 'relation', oid::regclass::text, obj_description(oid, 'pg_class')
	FROM pg_class WHERE relnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND relkind <> 'c'
	UNION ALL
	SELECT 'column', attrelid::regclass || '.' || attname, col_description(attrelid, attnum)
	FROM pg_class c JOIN pg_attribute ON attrelid = c.oid
	WHERE relnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND relkind NOT IN ('i', 'S') AND attnum > 0 AND NOT attisdropped
	UNION ALL
	SELECT 'function', p.oid::regprocedure::text, obj_description(p.oid, 'pg_proc')
	FROM pg_proc p WHERE pronamespace = 'taskshed'::regnamespace
	UNION ALL
	SELECT 'type', t.oid::regtype::text, obj_description(t.oid, 'pg_type')
	FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
	WHERE typnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND typcategory <> 'A' AND coalesce(c.relkind, 'c') = 'c'
	UNION ALL
	SELECT 'trigger', tgname || ' on ' || tgrelid::regclass, obj_description(t.oid, 'pg_trigger')
	FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
	WHERE relnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND NOT tgisinternal
	UNION ALL
	SELECT 'setting', name, short_desc FROM pg_settings WHERE name LIKE 'taskshed.%'
)
SELECT kind, name FROM described WHERE coalesce(description, '') = '' ORDER BY kind, name COLLATE "C";
-- and each description is a sentence, or a noun with a full stop.
SELECT objoid::regproc, description FROM pg_description JOIN pg_proc p ON p.oid = objoid
WHERE classoid = 'pg_proc'::regclass AND pronamespace = 'taskshed'::regnamespace AND description !~ '^[A-Z].*\.$';
