/*-------------------------------------------------------------------------
 *
 * install.c
 *		CREATE EXTENSION: what is asked for before, and done behind.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "hooks/hooks.h"

/*
 * Return whether there is anything in our schema but the function of that OID.
 * No SQL can be asked: the schema is in the search_path of the script, and an
 * operator in it may be a better match than the server's own.
 */
static bool
install_is_filled(Oid schema, Oid but)
{
	Relation	rel = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		filled = false;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(NamespaceRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(schema));
	scan = systable_beginscan(rel, DependReferenceIndexId, true, NULL, 2, keys);
	while (!filled && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);

		filled = (form->classid != ExtensionRelationId &&
				  !(form->classid == ProcedureRelationId && form->objid == but));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return filled;
}

/*
 * Check what CREATE EXTENSION needs, which begins with this.  A schema taskshed
 * that was there before must be a superuser's, since its owner could put
 * functions beside ours, and drop ours; and empty, since what is there would be
 * taken for ours, by its name.  The schema of our tables is made by the script; one
 * that is there already is somebody else's.
 */
PG_FUNCTION_INFO_V1(ts_check_install);
Datum
ts_check_install(PG_FUNCTION_ARGS)
{
	HeapTuple	tuple;
	Oid			schema;
	Oid			owner;

	if (IsBinaryUpgrade)
		PG_RETURN_VOID();
	ts_require_preload();
	tuple = SearchSysCache1(NAMESPACENAME, CStringGetDatum("taskshed"));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "schema taskshed does not exist");
	schema = ((Form_pg_namespace) GETSTRUCT(tuple))->oid;
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	if (!superuser_arg(owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("schema \"taskshed\" is owned by role \"%s\", which is not a superuser",
						GetUserNameFromId(owner, false)),
				 errhint("Drop the schema.")));
	if (install_is_filled(schema, fcinfo->flinfo->fn_oid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("schema \"taskshed\" is not empty"),
				 errhint("Drop it, or what is in it.")));
	if (OidIsValid(store_schema()))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_SCHEMA),
				 errmsg("schema \"_taskshed\" already exists"),
				 errdetail("The extension makes a schema of this name for its tables."),
				 errhint("Drop the schema, or rename it.")));
	PG_RETURN_VOID();
}

/*
 * Have a scheduler started, since CREATE EXTENSION ends with this.  Warn if
 * there is no room for all of our processes.
 */
PG_FUNCTION_INFO_V1(ts_start_scheduler);
Datum
ts_start_scheduler(PG_FUNCTION_ARGS)
{
	/* the launcher, this database's scheduler, its workers */
	int			needed = 1 + 1 + ts_max_workers + TS_SLOTS_LEFT_FREE;

	if (IsBinaryUpgrade)
		PG_RETURN_VOID();
	ts_require_preload();
	notes_want_scheduler();
	if (max_worker_processes < needed)
		ereport(WARNING,
				(errmsg("max_worker_processes is too low for taskshed.max_workers"),
				 errdetail("It is %d, and %d are needed for the launcher, this database's scheduler, %d workers and the %d left to others.",
						   max_worker_processes, needed, ts_max_workers, TS_SLOTS_LEFT_FREE),
				 errhint("Increase max_worker_processes, or lower taskshed.max_workers. Fewer tasks will run at the same time.")));
	PG_RETURN_VOID();
}

/*
 * Refuse a call of what scripts of earlier versions have and was not there yet.
 * They can be installed only if the library has what they name.
 */
PG_FUNCTION_INFO_V1(ts_not_supported);
Datum
ts_not_supported(PG_FUNCTION_ARGS)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("taskshed.%s() is not supported by this version of the extension",
					get_func_name(fcinfo->flinfo->fn_oid)),
			 errhint("ALTER EXTENSION taskshed UPDATE installs the version of the library.")));
}
