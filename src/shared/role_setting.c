/*-------------------------------------------------------------------------
 *
 * role_setting.c
 *		What a role has set one of our settings to.
 *
 * A worker is a session of its role, and simply has its settings.  The scheduler is
 * another's: for what it does in the place of a worker that is gone, it reads what
 * ALTER ROLE and ALTER DATABASE have left in the catalog.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_db_role_setting.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

#include "shared/shared.h"

/* Return the value for a name in an array of assignments, or NULL. */
static char *
role_setting_in(ArrayType *assignments, const char *name)
{
	Datum	   *values;
	bool	   *nulls;
	int			n;
	int			length = strlen(name);

	deconstruct_array(assignments, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		char	   *assignment = nulls[i] ? "" : TextDatumGetCString(values[i]);

		if (pg_strncasecmp(assignment, name, length) == 0 && assignment[length] == '=')
			return assignment + length + 1;
	}
	return NULL;
}

/* Return what a setting was given for a database, a role, or both; else NULL. */
static char *
role_setting_get(Oid database, Oid role, const char *name)
{
	Relation	rel = table_open(DbRoleSettingRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *value = NULL;

	ScanKeyInit(&keys[0], Anum_pg_db_role_setting_setdatabase, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(database));
	ScanKeyInit(&keys[1], Anum_pg_db_role_setting_setrole, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(role));
	scan = systable_beginscan(rel, DbRoleSettingDatidRolidIndexId, true, NULL, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		assignments = heap_getattr(tuple, Anum_pg_db_role_setting_setconfig,
											   RelationGetDescr(rel), &isnull);

		if (!isnull)
			value = role_setting_in(DatumGetArrayTypeP(assignments), name);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return value;
}

/*
 * Return what a setting is in sessions of a role: in its worker own, the variable, and
 * elsewhere what is in the catalog, most special first, or own if there is nothing.
 */
const char *
role_setting(Oid role, const char *name, const char *own)
{
	const char *value;

	if (ts_my_worker != NULL)
		return own;
	value = role_setting_get(MyDatabaseId, role, name);
	if (value == NULL)
		value = role_setting_get(InvalidOid, role, name);
	if (value == NULL)
		value = role_setting_get(MyDatabaseId, InvalidOid, name);
	if (value == NULL)
		value = role_setting_get(InvalidOid, InvalidOid, name);
	return value != NULL ? value : own;
}
