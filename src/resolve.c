/*-------------------------------------------------------------------------
 *
 * resolve.c
 *		Which function a callback's name and argument names mean.
 *
 * The server's own rules decide, those for a call name(argument => ...): an
 * unqualified name is looked for in the search_path, defaults fill in what is
 * left out.  What remains for us is to say clearly why there is no such
 * function, since who schedules is not there when it is called.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "taskshed.h"

/* A name as the user wrote it, taken apart; 42602 if it is none. */
List *
resolve_name(const char *name)
{
	List	   *names = textToQualifiedNameList(cstring_to_text(name));

	if (list_length(names) > 2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid callback name \"%s\"", name),
				 errhint("A callback is named function or schema.function.")));
	return names;
}

/* name(argument type, ...), for messages */
static char *
resolve_signature(const char *qualified, Oid funcid)
{
	Datum		arguments = OidFunctionCall1(F_PG_GET_FUNCTION_IDENTITY_ARGUMENTS,
											 ObjectIdGetDatum(funcid));

	return psprintf("%s(%s)", qualified, TextDatumGetCString(arguments));
}

/* A function's name, schema-qualified and quoted. */
char *
resolve_qualified_name(Oid funcid)
{
	char	   *name = get_func_name(funcid);
	char	   *schema = get_namespace_name(get_func_namespace(funcid));

	if (name == NULL || schema == NULL)
		elog(ERROR, "cache lookup failed for function %u", funcid);
	return quote_qualified_identifier(schema, name);
}

/*
 * The name under which a callback is stored when nobody checks that it
 * exists: in the schema where a function of that name is found or, failing
 * that, where CREATE FUNCTION would put it.
 */
char *
resolve_qualify(const char *name)
{
	List	   *names = resolve_name(name);
	FuncCandidateList candidates;
	char	   *schema;
	char	   *function;

	DeconstructQualifiedName(names, &schema, &function);
	if (schema == NULL)
	{
		candidates = FuncnameGetCandidates(names, -1, NIL, false, false, false, true);
		if (candidates != NULL)
			return resolve_qualified_name(candidates->oid);
		schema = get_namespace_name(QualifiedNameGetCreationNamespace(names, &function));
	}
	return quote_qualified_identifier(schema, function);
}

/*
 * The types of a function's input arguments by their names.  Returns their
 * number; an argument without a name has "".
 */
int
resolve_input_arguments(Oid funcid, char ***names, Oid **types, int *ndefaults)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	Oid		   *all_types;
	char	  **all_names;
	char	   *modes;
	int			nall;
	int			n = 0;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", funcid);
	nall = get_func_arg_info(tuple, &all_types, &all_names, &modes);
	*names = palloc((nall + 1) * sizeof(char *));
	*types = palloc((nall + 1) * sizeof(Oid));
	for (int i = 0; i < nall; i++)
	{
		if (modes != NULL && (modes[i] == PROARGMODE_OUT || modes[i] == PROARGMODE_TABLE))
			continue;
		(*names)[n] = all_names != NULL && all_names[i] != NULL ? all_names[i] : "";
		(*types)[n] = all_types[i];
		n++;
	}
	*ndefaults = ((Form_pg_proc) GETSTRUCT(tuple))->pronargdefaults;
	ReleaseSysCache(tuple);
	return n;
}

/* Says why none of the functions of a name takes the keys: 42883. */
static void
resolve_report_mismatch(const char *name, List *names, char **keys, int nkeys)
{
	FuncCandidateList candidates;
	StringInfoData list;

	candidates = FuncnameGetCandidates(names, -1, NIL, false, false, false, true);
	if (candidates == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("callback %s does not exist", NameListToQuotedString(names)),
				 list_length(names) == 1 ?
				 errhint("No function of that name is in the search_path. Name the schema if it is elsewhere.") : 0));

	if (candidates->next == NULL)
	{
		char	   *signature = resolve_signature(resolve_qualified_name(candidates->oid),
												  candidates->oid);
		char	  **argnames;
		Oid		   *argtypes;
		int			ndefaults;
		int			nargs = resolve_input_arguments(candidates->oid, &argnames,
													&argtypes, &ndefaults);

		for (int i = 0; i < nkeys; i++)
		{
			int			j;

			for (j = 0; j < nargs && strcmp(keys[i], argnames[j]) != 0; j++)
				;
			if (j == nargs)
				ereport(ERROR,
						(errcode(ERRCODE_UNDEFINED_FUNCTION),
						 errmsg("callback %s has no argument \"%s\"", signature, keys[i])));
		}
		for (int i = 0; i < nargs - ndefaults; i++)
		{
			int			j;

			for (j = 0; j < nkeys && strcmp(keys[j], argnames[i]) != 0; j++)
				;
			if (j == nkeys && argnames[i][0] == '\0')
				ereport(ERROR,
						(errcode(ERRCODE_UNDEFINED_FUNCTION),
						 errmsg("argument %d of callback %s has no name", i + 1, signature),
						 errhint("kwargs passes arguments by name only.")));
			if (j == nkeys)
				ereport(ERROR,
						(errcode(ERRCODE_UNDEFINED_FUNCTION),
						 errmsg("callback %s needs argument \"%s\"", signature, argnames[i]),
						 errhint("Give it a value in kwargs.")));
		}
	}

	initStringInfo(&list);
	for (; candidates != NULL; candidates = candidates->next)
		appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "",
						 resolve_signature(resolve_qualified_name(candidates->oid),
										   candidates->oid));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("no callback %s takes these arguments", NameListToQuotedString(names)),
			 errdetail("The functions of that name are %s.", list.data)));
}

/* The one function that name(key => ..., ...) calls. */
Oid
resolve_callback(const char *name, char **keys, int nkeys)
{
	List	   *names = resolve_name(name);
	List	   *argnames = NIL;
	FuncCandidateList candidates;
	Oid			funcid;

	for (int i = 0; i < nkeys; i++)
		argnames = lappend(argnames, keys[i]);
	if (nkeys > FUNC_MAX_ARGS)
		resolve_report_mismatch(name, names, keys, nkeys);
	candidates = FuncnameGetCandidates(names, nkeys, argnames, false, true, false, true);
	if (candidates == NULL)
		resolve_report_mismatch(name, names, keys, nkeys);
	if (candidates->next != NULL || !OidIsValid(candidates->oid))
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_FUNCTION),
				 errmsg("callback %s is not unique with these arguments",
						NameListToQuotedString(names))));

	funcid = candidates->oid;
	switch (get_func_prokind(funcid))
	{
		case PROKIND_FUNCTION:
			if (get_func_rettype(funcid) == TRIGGEROID ||
				get_func_rettype(funcid) == EVENT_TRIGGEROID)
				ereport(ERROR,
						(errcode(ERRCODE_WRONG_OBJECT_TYPE),
						 errmsg("%s is a trigger function", name),
						 errhint("Only a function that can be called directly can be a callback.")));
			break;
		case PROKIND_PROCEDURE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("%s is a procedure, which is not supported as a callback yet", name)));
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("%s is an aggregate or window function", name),
					 errhint("Only a function that can be called directly can be a callback.")));
	}
	return funcid;
}
